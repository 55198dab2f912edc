# shellcheck shell=bash
# bash completion for modwsgi-tel and modwsgi-tel.pyz.  Belongs into /etc/bash_completion.d, or is sourced.
# Generated from the tables of commands and options; do not edit.

# Which words a command has, and what is to stand behind an option of it, or behind the command itself ("").
_modwsgi_tel_words() {
    case $1 in
        '') echo 'serve top dump stacks why doctor check extras processes inspect record hot sample memory stack-helper simulate replay demo --help --version' ;;
        serve) echo '--listen --socket-mode --socket-group --http-host --http-port --http-socket --http-socket-mode --no-http-port --root-path --allow-host --token-file --max-processes --max-slow --max-samples --max-interpreters --max-groups --max-events --keep-bytes --unpacked-bytes --slow-bytes --slow-retention --gc-retention --process-retention --silent-retention --max-connections --max-request-line --max-headers --max-header-count --max-body --request-timeout --idle-timeout --write-timeout --stacks --stacks-rate --stacks-helper --stacks-post --textfile --textfile-interval --metrics-processes --record --record-size --log-level --log-file --config --check-config --help' ;;
        top) echo '--listen --socket-mode --socket-group --http-host --http-port --http-socket-mode --root-path --allow-host --max-processes --max-slow --max-samples --max-interpreters --max-groups --max-events --keep-bytes --unpacked-bytes --slow-bytes --slow-retention --gc-retention --process-retention --silent-retention --max-connections --max-request-line --max-headers --max-header-count --max-body --request-timeout --idle-timeout --write-timeout --stacks --stacks-rate --stacks-helper --stacks-post --metrics-processes --record --record-size --log-level --log-file --config --url --http-socket --token-file --timeout --view --group --window --refresh --no-color --ascii --once --once-timeout --plain --replay --at --speed --help' ;;
        dump) echo '--listen --socket-mode --socket-group --config --url --http-socket --token-file --timeout --format --output --keep --count --duration --help' ;;
        stacks) echo '--config --group --apache --all-python --subprocesses --no-idle --locals --flat --json --interval --count --stop --core --executable --root --agent --self-check --help' ;;
        why) echo '--config --url --http-socket --token-file --timeout --group --pid --json --since --duration --log --help' ;;
        doctor) echo '--config --url --http-socket --token-file --timeout --listen --pid --json --help' ;;
        check) echo '--config --url --http-socket --token-file --timeout -t --group --warning -w --critical -c --p --phase --window --json --help' ;;
        extras) echo '--config --output --force --program --json --help' ;;
        processes) echo '--config --url --http-socket --token-file --timeout --group --pid --no-system --sort --stacktraces --flat --json --help' ;;
        inspect) echo '--config --group --apache --all-python --subprocesses --json --watch --interval --next --file --port --help' ;;
        record) echo '--config --group --apache --all-python --subprocesses --duration --rate --idle --gil --cpu --by --stop --output -o --format --diff --help' ;;
        hot) echo '--config --refresh --no-color --ascii --plain --group --apache --all-python --subprocesses --rate --idle --gil --stop --window --sort --once --duration --json --help' ;;
        sample) echo '--config --interval --log --log-size --module -m --help' ;;
        memory) echo '--config --start --stop --frames --json --help' ;;
        stack-helper) echo '--listen --socket-mode --socket-group --allow-uid --for-uid --stacks-rate --log-level --config --help' ;;
        simulate) echo '--config --target --wait --profile --processes --groups --interval --seed --speed --duration --help' ;;
        replay) echo '--config --target --wait --speed --help' ;;
        demo) echo '--http-host --http-port --http-socket --http-socket-mode --no-http-port --root-path --allow-host --token-file --max-processes --max-slow --max-samples --max-interpreters --max-groups --max-events --keep-bytes --unpacked-bytes --slow-bytes --slow-retention --gc-retention --process-retention --silent-retention --max-connections --max-request-line --max-headers --max-header-count --max-body --request-timeout --idle-timeout --write-timeout --stacks --stacks-rate --stacks-helper --stacks-post --metrics-processes --record --record-size --log-level --log-file --config --profile --processes --groups --interval --seed --duration --help' ;;
    esac
}

_modwsgi_tel_kind() {
    case "$1 $2" in
        'serve ' | 'serve --socket-mode' | 'serve --http-host' | 'serve --http-port' | 'serve --http-socket-mode' | 'serve --root-path' | 'serve --allow-host' | 'serve --max-processes' | 'serve --max-slow' | 'serve --max-samples' | 'serve --max-interpreters' | 'serve --max-groups' | 'serve --max-events' | 'serve --keep-bytes' | 'serve --unpacked-bytes' | 'serve --slow-bytes' | 'serve --slow-retention' | 'serve --gc-retention' | 'serve --process-retention' | 'serve --silent-retention' | 'serve --max-connections' | 'serve --max-request-line' | 'serve --max-headers' | 'serve --max-header-count' | 'serve --max-body' | 'serve --request-timeout' | 'serve --idle-timeout' | 'serve --write-timeout' | 'serve --stacks-rate' | 'serve --textfile-interval' | 'serve --metrics-processes' | 'serve --record-size' | 'top ' | 'top --socket-mode' | 'top --http-host' | 'top --http-port' | 'top --http-socket-mode' | 'top --root-path' | 'top --allow-host' | 'top --max-processes' | 'top --max-slow' | 'top --max-samples' | 'top --max-interpreters' | 'top --max-groups' | 'top --max-events' | 'top --keep-bytes' | 'top --unpacked-bytes' | 'top --slow-bytes' | 'top --slow-retention' | 'top --gc-retention' | 'top --process-retention' | 'top --silent-retention' | 'top --max-connections' | 'top --max-request-line' | 'top --max-headers' | 'top --max-header-count' | 'top --max-body' | 'top --request-timeout' | 'top --idle-timeout' | 'top --write-timeout' | 'top --stacks-rate' | 'top --metrics-processes' | 'top --record-size' | 'top --url' | 'top --timeout' | 'top --group' | 'top --refresh' | 'top --once-timeout' | 'top --at' | 'top --speed' | 'dump ' | 'dump --socket-mode' | 'dump --url' | 'dump --timeout' | 'dump --keep' | 'dump --count' | 'dump --duration' | 'stacks --group' | 'stacks --interval' | 'stacks --count' | 'why ' | 'why --url' | 'why --timeout' | 'why --group' | 'why --since' | 'why --duration' | 'doctor ' | 'doctor --url' | 'doctor --timeout' | 'check --url' | 'check --timeout' | 'check -t' | 'check --group' | 'check --warning' | 'check -w' | 'check --critical' | 'check -c' | 'processes ' | 'processes --url' | 'processes --timeout' | 'processes --group' | 'inspect --group' | 'inspect --interval' | 'inspect --port' | 'record --group' | 'record --duration' | 'record --rate' | 'hot --refresh' | 'hot --group' | 'hot --rate' | 'hot --duration' | 'sample --interval' | 'sample --log-size' | 'sample --module' | 'sample -m' | 'memory --frames' | 'stack-helper ' | 'stack-helper --socket-mode' | 'stack-helper --stacks-rate' | 'simulate ' | 'simulate --processes' | 'simulate --groups' | 'simulate --interval' | 'simulate --seed' | 'simulate --speed' | 'simulate --duration' | 'replay --speed' | 'demo ' | 'demo --http-host' | 'demo --http-port' | 'demo --http-socket-mode' | 'demo --root-path' | 'demo --allow-host' | 'demo --max-processes' | 'demo --max-slow' | 'demo --max-samples' | 'demo --max-interpreters' | 'demo --max-groups' | 'demo --max-events' | 'demo --keep-bytes' | 'demo --unpacked-bytes' | 'demo --slow-bytes' | 'demo --slow-retention' | 'demo --gc-retention' | 'demo --process-retention' | 'demo --silent-retention' | 'demo --max-connections' | 'demo --max-request-line' | 'demo --max-headers' | 'demo --max-header-count' | 'demo --max-body' | 'demo --request-timeout' | 'demo --idle-timeout' | 'demo --write-timeout' | 'demo --stacks-rate' | 'demo --metrics-processes' | 'demo --record-size' | 'demo --processes' | 'demo --groups' | 'demo --interval' | 'demo --seed' | 'demo --duration')
            echo 'nothing' ;;
        'serve --listen' | 'top --listen' | 'dump --listen' | 'doctor --listen' | 'stack-helper --listen' | 'simulate --target' | 'replay --target')
            echo 'socket' ;;
        'serve --socket-group' | 'top --socket-group' | 'dump --socket-group' | 'stack-helper --socket-group')
            echo 'group' ;;
        'serve --http-socket' | 'serve --token-file' | 'serve --stacks-helper' | 'serve --textfile' | 'serve --record' | 'serve --log-file' | 'serve --config' | 'top --stacks-helper' | 'top --record' | 'top --log-file' | 'top --config' | 'top --http-socket' | 'top --token-file' | 'top --replay' | 'dump --config' | 'dump --http-socket' | 'dump --token-file' | 'dump --output' | 'stacks --config' | 'stacks --core' | 'stacks --executable' | 'why --config' | 'why --http-socket' | 'why --token-file' | 'why --log' | 'doctor --config' | 'doctor --http-socket' | 'doctor --token-file' | 'check --config' | 'check --http-socket' | 'check --token-file' | 'extras --config' | 'extras --program' | 'processes --config' | 'processes --http-socket' | 'processes --token-file' | 'inspect --config' | 'inspect --file' | 'record --config' | 'record --output' | 'record -o' | 'record --diff' | 'hot --config' | 'sample ' | 'sample --config' | 'sample --log' | 'memory --config' | 'stack-helper --config' | 'simulate --config' | 'replay ' | 'replay --config' | 'demo --http-socket' | 'demo --token-file' | 'demo --stacks-helper' | 'demo --record' | 'demo --log-file' | 'demo --config')
            echo 'file' ;;
        'serve --stacks' | 'top --stacks' | 'demo --stacks')
            echo 'names:auto,off' ;;
        'serve --stacks-post' | 'top --stacks-post' | 'demo --stacks-post')
            echo 'names:auto,on,off' ;;
        'serve --log-level' | 'top --log-level' | 'stack-helper --log-level' | 'demo --log-level')
            echo 'names:DEBUG,INFO,WARNING,ERROR,CRITICAL' ;;
        'top --view')
            echo 'names:overview,processes,workers,latency,slow,gc,lifecycle,collector,stacks,time,exceptions,tree' ;;
        'top --window')
            echo 'names:now,1m,10m' ;;
        'dump --format')
            echo 'names:text,json,jsonl,csv' ;;
        'stacks ' | 'why --pid' | 'doctor --pid' | 'processes --pid' | 'inspect ' | 'record ' | 'hot ' | 'memory ')
            echo 'pid' ;;
        'stacks --root' | 'extras --output')
            echo 'folder' ;;
        'check ')
            echo 'names:findings,capacity,latency,errors,silent,rss,collector' ;;
        'check --p')
            echo 'names:50,95,99' ;;
        'check --phase')
            echo 'names:request,server,queue,daemon,application,gil_wait,input_read,output_write' ;;
        'check --window')
            echo 'names:1m,10m' ;;
        'extras ')
            echo 'names:prometheus,grafana,completion,nagios,icinga2,cron,logrotate,sysusers.d,tmpfiles.d,systemd,express,selinux,apparmor,apache,prometheus/scrape.yml,prometheus/recording.yml,prometheus/alerts.yml,grafana/modwsgi-tel.json,completion/modwsgi-tel.bash,completion/_modwsgi-tel,completion/modwsgi-tel.fish,nagios/modwsgi-tel.cfg,icinga2/modwsgi-tel.conf,cron/modwsgi-tel,logrotate/modwsgi-tel,sysusers.d/modwsgi-tel.conf,tmpfiles.d/modwsgi-tel.conf,systemd/modwsgi-tel.service,systemd/rhel.conf,systemd/modwsgi-tel-http.socket,systemd/modwsgi-tel-stacks.service,systemd/stacks.conf,systemd/modwsgi-tel-dump.service,systemd/modwsgi-tel-dump.timer,systemd/apparmor.conf,express/modwsgi_tel_service.py,selinux/modwsgi_tel.te,selinux/modwsgi_tel.fc,apparmor/modwsgi-tel,apparmor/apache2,apache/proxy.conf' ;;
        'processes --sort')
            echo 'names:start,cpu,rss,age' ;;
        'record --by')
            echo 'several:process,interpreter,thread' ;;
        'record --format')
            echo 'names:svg,folded,speedscope,firefox' ;;
        'hot --window')
            echo 'names:5s,15s,1m,2m' ;;
        'hot --sort')
            echo 'names:own,total,gil,own_s,total_s,function,file' ;;
        'stack-helper --allow-uid' | 'stack-helper --for-uid')
            echo 'user' ;;
        'simulate --profile' | 'demo --profile')
            echo 'names:steady,busy,gil,slow,leak,gc-storm,crash-loop,deploy' ;;
        *) echo flag ;;
    esac
}

_modwsgi_tel() {
    local IFS=$' \t\n' at=0 word words=() current option='' command='' value prefix='' kind offered=() each
    # bash cuts words at = and : too: put together what it has cut
    while ((at <= COMP_CWORD)); do
        word=${COMP_WORDS[at]}
        if ((at > 1 && ${#words[@]} > 1)) && [[ $word == [=:]* || ${words[${#words[@]} - 1]} == -*[=:] || ${words[${#words[@]} - 1]} == unix: ]]; then
            words[${#words[@]} - 1]+=$word
        else
            words+=("$word")
        fi
        ((at += 1))
    done
    at=$((${#words[@]} - 1))
    current=${words[at]}

    if ((at > 1)) || [[ $current == -* ]]; then
        command=${words[1]}
        [[ $command == -* ]] && command=serve           # what runs when none is named
    else
        command='' option=''
    fi
    ((at > 1)) && option=${words[at - 1]}
    value=$current
    if [[ $current == --*=* ]]; then
        option=${current%%=*} value=${current#*=} prefix=$option=
    fi
    kind=flag
    [[ $option == -* ]] && kind=$(_modwsgi_tel_kind "$command" "$option")
    if [[ $kind == flag ]]; then
        kind=words
        [[ -n $command && $current != -* ]] && kind=$(_modwsgi_tel_kind "$command" '')
        [[ $kind == nothing && -z $current ]] && kind=words
    fi

    compopt +o default
    case $kind in
        file) compopt -o default; return ;;             # bash's own, which know how to quote
        folder) compopt -o dirnames; return ;;
        socket)
            [[ $value == unix:* ]] && { compopt -o default; return; }
            compopt -o nospace
            offered=(unix:) ;;
        pid) offered=(/proc/[0-9]*); offered=("${offered[@]#/proc/}") ;;
        user) mapfile -t offered < <(compgen -u) ;;
        group) mapfile -t offered < <(compgen -g) ;;
        words) read -ra offered <<<"$(_modwsgi_tel_words "$command")" ;;
        names:*) IFS=, read -ra offered <<<"${kind#*:}" ;;
        several:*)
            IFS=, read -ra offered <<<"${kind#*:}"
            [[ $value == *,* ]] && offered=("${offered[@]/#/${value%,*},}") ;;
        *) return ;;
    esac
    COMPREPLY=()
    for each in "${offered[@]}"; do
        [[ $each == "$value"* ]] && COMPREPLY+=("$prefix$each")
    done
    # and bash puts in only what stands behind the last of these
    for each in = :; do
        if [[ $COMP_WORDBREAKS == *"$each"* && $current == *"$each"* ]]; then
            COMPREPLY=("${COMPREPLY[@]#"${current%"$each"*}$each"}")
        fi
    done
}

complete -o default -F _modwsgi_tel modwsgi-tel modwsgi-tel.pyz
