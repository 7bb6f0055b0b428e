"""What a failed transfer means for a person: rsync's exit status and ssh's words become a code, and what to do."""

from core.errors import LoradError

INSTALL = "install rsync: `apt-get install rsync`, `dnf install rsync`, `apk add rsync` or `brew install rsync`"
ASLEEP = "start `lorad serve` on it; what is live stays live, and the delivery goes on by itself"
BY_ITSELF = "the delivery goes on by itself"

TARGET_DISK_FULL = "TARGET_DISK_FULL"
TARGET_UNREACHABLE = "TARGET_UNREACHABLE"
TARGET_SILENT = "TARGET_SILENT"
TARGET_RACED = "TARGET_RACED"  # rrsync met a file that was replaced, or one that is not there
HOST_KEY_CHANGED = "HOST_KEY_CHANGED"
KEY_REFUSED = "KEY_REFUSED"
UNREACHABLE_CODES = {5, 10, 12, 35, 255}  # start of the protocol, socket, stream, time to connect, ssh
SILENT_CODE = 30  # no byte for the whole of --timeout
BY_HAND = frozenset(  # a person mends these
    {HOST_KEY_CHANGED, KEY_REFUSED, "RSYNC_MISSING_THERE", "RSYNC_OLD", "TARGET_PATH_MISSING", "HOST_UNKNOWN", "NETWORK_DENIED", "KEY_CONFINED"}
)

# In the order in which they are looked for: an ssh that was refused says more than one line. {target} is filled in.
WORDS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("(race detected)", "(race?)", "file has vanished"), TARGET_RACED, "a file there was replaced while it was read; " + BY_ITSELF),
    (
        ("REMOTE HOST IDENTIFICATION HAS CHANGED", "Host key verification failed", "host key is known for"),
        HOST_KEY_CHANGED,
        "nothing is sent to a box with another host key. If you set it up anew: `lorad deploy setup {target} --repin`, and compare the fingerprint there",
    ),
    (
        (*(f"Permission denied ({way}" for way in ("publickey", "password", "keyboard", "gssapi", "hostbased")), "Too many authentication failures"),
        KEY_REFUSED,
        "the box does not take our key: `lorad deploy setup {target}` prints the two lines for its authorized_keys",
    ),
    (("Could not resolve hostname",), "HOST_UNKNOWN", "no name server knows the host: correct `host` of target {target} in the config"),
    (("Connection refused",), "PORT_REFUSED", "nothing listens there: start sshd on the box, or correct `port` of target {target}; " + BY_ITSELF),
    (
        ("timed out", "timeout in data send/receive", "Timeout, server", "No route to host", "Network is unreachable", "not responding"),
        TARGET_SILENT,
        "the box does not answer: is it on, is the network up, does a firewall drop port 22? " + BY_ITSELF,
    ),
    (
        ("ssh: connect to host",),
        "NETWORK_DENIED",
        "this service may not use the network: a drop-in with IPAddressAllow for the box (docs/howto/a-second-box.md), then restart it",
    ),
    (
        ("Restricted directory does not exist", "unable to chdir to restricted dir", "unable to pin restricted dir"),
        "TARGET_PATH_MISSING",
        "the folder that the key is confined to is not there: `lorad serve` makes it, or correct `path` of target {target} and run setup again",
    ),
    (
        ("rrsync: not found", "rrsync: No such file", "rrsync: command not found", "rsync: not found", "rsync: command not found"),
        "RSYNC_MISSING_THERE",
        "install rsync on the box: `apt-get install rsync` there; it brings rrsync",
    ),
    (
        ("unknown option", "unrecognized arguments", "has been disabled on this server"),
        "RSYNC_OLD",
        "rsync 3.2.7 or newer, with its rrsync, is needed on both boxes",
    ),
    (("No space left on device", "Disk quota exceeded"), TARGET_DISK_FULL, "free space on the receiving box; " + BY_ITSELF),
    (
        ("Permission denied", "Read-only file system"),
        "TARGET_DENIED",
        "the user of the daemon (of the ssh key, for kind ssh) must be able to write the target's in/ and to read its out/",
    ),
    (
        ("server is not allowed", "server cannot read", "SSH_ORIGINAL_COMMAND does not run rsync"),
        "KEY_CONFINED",
        "the key is confined to the other way: compare the two lines in authorized_keys with those that `lorad deploy setup {target}` shows",
    ),
)


class TransferError(LoradError):
    """rsync did not bring it over; the code says why."""


def explain(target: str, status: int, stderr: str) -> TransferError:
    """What rsync's exit status and messages mean for a person."""
    said = [line for line in stderr.strip().splitlines() if line.strip("@ ")]
    for words, code, hint in WORDS:
        line = next((line for line in said if any(word in line for word in words)), None)
        if line is not None:
            return TransferError(_what(target, status, line), hint=hint.format(target=target), code=code)
    what = _what(target, status, said[0] if said else "no message")
    if status == SILENT_CODE:
        return TransferError(what, hint=f"the box does not answer; {BY_ITSELF}", code=TARGET_SILENT)
    if status in UNREACHABLE_CODES or "No such file or directory" in stderr:
        return TransferError(what, hint=ASLEEP, code=TARGET_UNREACHABLE)
    return TransferError(what, hint="the link tries again by itself; the message is rsync's own", code="RSYNC_FAILED")


def _what(target: str, status: int, line: str) -> str:
    return f"target {target!r}: rsync ended with {status}: {line.strip()}"


def rsync_missing() -> TransferError:
    """rsync is not installed on this box."""
    return TransferError("rsync is not on PATH", hint=INSTALL, code="RSYNC_MISSING")
