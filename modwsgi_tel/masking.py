"""What is a secret by its name or by its looks, and text in which such is masked: for stacks from outside and from inside."""
import functools
import re

# A bare `key` is masked too: it is a dictionary's far more often than a cipher's, but only the latter does harm when it is shown
_SECRET = (r"passw|passphrase|passcode|secret|token|credential|authori[sz]ation|cookie|session|sess_?id|signature|private|"
           r"api_?key|csrf|pwd|bearer|credit_?card|card_?num|"
           r"(?:(?<![^\W_])(?:key|auth|pass|pw|otp|jwt|sid|pin|hmac|salt|nonce|ssn|cvv|cvc)(?![^\W\d_]))")
SECRET = re.compile(_SECRET, re.IGNORECASE)
MASKED = "<masked>"
BEYOND = 400                            # letters that are read behind those that are shown: what tells of a secret may lie there
_WORDS_MOST = 100

_BY_PLACE = (
    (re.compile(r"(\w://[^/\s:@]*:)(?!\d+/)\S+@"), r"\1***@"),                             # http://name:password@host, no port
    (re.compile(r"(cookie2?['\"]?\s*[=:]\s*)[^\r\n]+", re.IGNORECASE), r"\1***"),
)
# What is a secret by its looks, wherever it stands: of Stripe, GitHub, Slack, AWS; a JWT; a private key
_BY_LOOKS = (
    (re.compile(r"(?<![^\W_])([sr]k_(?:live|test)_|gh[oprsu]_|github_pat_|xox[abeoprs]-|AKIA|ASIA|eyJ)[\w.=/+-]{8,}"), r"\1***"),
    (re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----)[\s\S]*?(?:-----END [A-Z ]*-----|\Z)"), r"\1***"),
)
_URL_CUT = re.compile(r"(\w://[^/\s:@]*:)(?!\d+/)\S+\Z")


def pattern(words):
    """The names that tell of a secret: SECRET's, and those in which one of these words is found, in whatever case."""
    added = [re.escape(word) for word in words if word][:_WORDS_MOST]
    return re.compile("|".join([_SECRET, *added]), re.IGNORECASE) if added else SECRET


@functools.lru_cache(maxsize=8)
def _by_name(secrets):
    """What finds password=..., "token": "...", Authorization: Bearer ... in a text, for such a pattern."""
    return re.compile(r"((?:" + secrets.pattern + r")[\w-]*['\"]?\s*[=:]\s*(?:(?:basic|bearer|digest)\s+)?)"
                      r"(?:\"[^\"]*\"?|'[^']*'?|[^\s&;,'\"]+)", re.IGNORECASE)


def masked(text, secrets=SECRET, cut=False):
    """A text without what is told to be a secret in it.  cut: it goes on where it ends."""
    if cut:
        text = _URL_CUT.sub(r"\1***", text)
    for found, shown in (*_BY_LOOKS, *_BY_PLACE):
        text = found.sub(shown, text)
    return _by_name(secrets).sub(r"\1***", text)


def quoted(text, cut, longest, quote, secrets=SECRET):
    """A text in quotes, of about `longest` letters, masked.  cut: it goes on; quote: puts it in quotes, as repr does."""
    text = masked(text, secrets, cut)
    return quote(text[:longest]) + ("..." if cut or len(text) > longest else "")
