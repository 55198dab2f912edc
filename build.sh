#!/usr/bin/env bash
# Builds dist/modwsgi-tel.pyz, runs it, tests the project.  `./build.sh --help` says how.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: ./build.sh [build [FOLDER]]    build FOLDER/modwsgi-tel.pyz and its .sha256 (FOLDER: dist)
       ./build.sh run [ARGS...]       build if needed, then run the demo: a collector and a simulated fleet
       ./build.sh test [ARGS...]      run all tests; ARGS go to pytest
       ./build.sh clean               remove what these made: dist, build, .venv-*

Needs Python 3.9 or newer with venv, and nothing else.  PYTHON=python3.12 ./build.sh ... chooses which.
Where that Python has no shiv (or pytest) of the right version, one is fetched into .venv-VERSION once.
The same commit gives the same bytes, whatever the folder, umask, time, locale and Python.

examples:
  ./build.sh && (cd dist && sha256sum -c modwsgi-tel.pyz.sha256)
  ./build.sh run --http-port 9000
  ./build.sh test -k socket
  PYTHON=python3.9 ./build.sh test
TEXT
}

fail() {
    printf 'build.sh: %s\n' "$1" >&2
    exit 2
}

umask 022
export PIP_DISABLE_PIP_VERSION_CHECK=1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
python=${PYTHON:-python3}
name=modwsgi-tel.pyz

check_python() {
    local found
    python=$(command -v "$python") || fail "no ${PYTHON:-python3} here: apt-get install python3 python3-venv"
    found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2]); sys.exit(sys.version_info < (3, 9))' 2>&1) ||
        fail "needs Python 3.9 or newer, $python is: ${found%%$'\n'*}: choose one with PYTHON=python3.11 ./build.sh"
    case $python in /*) ;; *) python=$PWD/$python ;; esac
    venv=$here/.venv-$found
}

# pin shiv -> shiv==1.0.8, as pyproject.toml has it
pin() {
    local found
    found=$(sed -n "s/.*\"\\($1==[0-9.]*\\)\".*/\\1/p" "$here/pyproject.toml")
    [ -n "$found" ] || fail "pyproject.toml pins no $1"
    printf '%s\n' "$found"
}

# has PYTHON shiv==1.0.8: can it be imported in that version
has() {
    "$1" -c '
import sys
from importlib.metadata import version
name, wanted = sys.argv[1].split("==")
__import__(name)
sys.exit(version(name) != wanted)' "$2" 2>/dev/null
}

# tools shiv pytest: set $tool to a Python that has these, its own environment if need be
tools() {
    local wanted=() missing=() each
    for each in "$@"; do
        wanted+=("$(pin "$each")")
    done
    tool=$python
    for each in "${wanted[@]}"; do
        has "$tool" "$each" || missing+=("$each")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    tool=$venv/bin/python
    (
        # one at a time: the lock is on the folder itself, so nothing is left behind
        ! command -v flock >/dev/null || flock 9
        missing=()
        if has "$tool" "$(pin shiv)"; then              # made before: it is whole once shiv is in it
            for each in "${wanted[@]}"; do
                has "$tool" "$each" || missing+=("$each")
            done
        else
            rm -rf "$venv"
            make_venv
            missing=("${wanted[@]}")
        fi
        [ ${#missing[@]} -eq 0 ] || "$tool" -m pip --quiet install "${missing[@]}" >&2 ||
            fail "cannot fetch ${missing[*]} (see above); without them: $python -m modwsgi_tel from this folder"
    ) 9<"$here"
}

make_venv() {
    local said
    if ! said=$("$python" -m venv "$venv" 2>&1); then
        rm -rf "$venv"
        case $said in
            *ensurepip*|*"No module named venv"*)
                fail "$python cannot make a virtual environment: apt-get install python3-venv" ;;
            *)
                fail "$python -m venv failed: $(printf '%s\n' "$said" | tail -n 1)" ;;
        esac
    fi
}

# build FOLDER: shiv packs a clean copy of the package; then the start-up is replaced by modwsgi_tel/__main__.py, and
# everything is written anew, sorted, stored, with one date and one mode.  Put in place by renaming: never half a file.
build() {
    local out=$1 work
    tools shiv
    mkdir -p "$out"
    work=$(mktemp -d "$out/.build.XXXXXX")
    # shellcheck disable=SC2064  # the folder of now
    trap "rm -rf '$work'" EXIT
    "$tool" - stage "$here/modwsgi_tel" "$work/stage/modwsgi_tel" <<<"$packing"
    # 315532800 is 1980-01-01, where zip's time begins: not the commit's time, so a copy without .git gives the same
    (cd "$work" && SOURCE_DATE_EPOCH=315532800 "$tool" -m shiv --reproducible --uncompressed --site-packages stage \
        --entry-point modwsgi_tel.cli:main --output-file shiv.pyz)
    "$tool" - finish "$work/shiv.pyz" "$here/modwsgi_tel/__main__.py" "$work/$name" <<<"$packing"
    chmod 755 "$work/$name"
    mv -f "$work/$name" "$out/$name"
    mv -f "$work/$name.sha256" "$out/$name.sha256"
    rm -rf "$work"
    trap - EXIT
}

packing=$(cat <<'PYTHON'
import hashlib, io, os, shutil, sys, zipfile


def stage(package, into):
    """Copy what belongs into the archive: *.py, py.typed, and whatever lies in a folder named static."""
    for folder, folders, names in os.walk(package):
        folders[:] = [each for each in folders if each != "__pycache__" and not each.startswith(".")]
        target = os.path.join(into, os.path.relpath(folder, package))
        wanted = [each for each in names if not each.startswith(".") and not each.endswith(("~", ".pyc"))
                  and (each.endswith((".py", "py.typed")) or "static" in os.path.relpath(folder, package).split(os.sep))]
        for each in wanted:
            os.makedirs(target, exist_ok=True)
            shutil.copyfile(os.path.join(folder, each), os.path.join(target, each))


def finish(source, start, target):
    """Write shiv's archive anew with our start-up, and its checksum beside it (for sha256sum -c)."""
    with zipfile.ZipFile(source) as archive:
        entries = {each: archive.read(each) for each in archive.namelist()}
    with open(start, "rb") as file:
        entries["__main__.py"] = file.read()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for each in sorted(entries):
            info = zipfile.ZipInfo(each, date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 3
            info.external_attr = 0o100644 << 16
            archive.writestr(info, entries[each])
    data = b"#!/usr/bin/env python3\n" + packed.getvalue()
    with open(target, "wb") as file:
        file.write(data)
    with open(target + ".sha256", "w") as file:
        file.write("%s  %s\n" % (hashlib.sha256(data).hexdigest(), os.path.basename(target)))


{"stage": stage, "finish": finish}[sys.argv[1]](*sys.argv[2:])
PYTHON
)

is_fresh() {
    [ -f "$here/dist/$name" ] && [ -f "$here/dist/$name.sha256" ] &&
        [ -z "$(find "$here/modwsgi_tel" "$here/pyproject.toml" "$here/build.sh" -name __pycache__ -prune -o \
            -newer "$here/dist/$name" -print -quit)" ]
}

case ${1:-build} in
    build)
        [ $# -le 2 ] || fail "build takes one folder: see ./build.sh --help"
        check_python
        out=${2:-$here/dist}
        case $out in /*) ;; *) out=$PWD/$out ;; esac
        cd "$here"
        build "$out"
        printf 'built %s\n' "$out/$name"
        ;;
    run)
        shift
        check_python
        is_fresh || (cd "$here" && build "$here/dist")
        exec "$python" "$here/dist/$name" demo "$@"
        ;;
    test)
        shift
        check_python
        cd "$here"
        tools shiv pytest
        exec "$tool" tests/halves.py "$@"
        ;;
    clean)
        rm -rf "$here/dist" "$here/build" "$here"/.venv-*
        ;;
    -h|--help|help)
        usage
        ;;
    *)
        usage >&2
        fail "no command $1"
        ;;
esac
