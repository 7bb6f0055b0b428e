"""Making two boxes known to each other: the host key that we trust from now on, and the script that lets our two keys in there.

The script runs once on the box, by whoever is root there (`lorad deploy setup NAME --script | ssh root@box sh`): it puts the
two confined lines into authorized_keys in place of earlier ones of this target, brings release.pub, and writes a config.
"""

import base64
import binascii
import hashlib
import json
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from core.config import Config
from core.deployment import TargetConfig
from core.errors import StateError
from deploy.confinement import MARK, KeyPair, authorized_lines
from deploy.failures import TransferError, explain
from deploy.ssh import CONNECT_S, Way, pinned_path
from store.bases import base_folder, is_hub_id
from store.durable import replace_file
from store.keys import PUBLIC
from store.paths import Home

KINDS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa")  # of a host key, the first that the box has is pinned
STOCK = "serving"  # a config that does not hold this word is the one that came with the package


def scan_host_key(target: TargetConfig) -> str:
    """The box's host key as it shows itself now ("ssh-ed25519 AAAA…"). Whoever calls asks a person whether it is the right one. Raises TransferError."""
    words = ["ssh-keyscan", "-T", str(CONNECT_S), "-p", str(target.port), "-t", "ed25519,ecdsa,rsa", target.host]
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=6 * CONNECT_S)
    except FileNotFoundError:
        raise TransferError("ssh is not on PATH", hint="install it: `apt-get install openssh-client`", code="SSH_MISSING") from None
    except subprocess.TimeoutExpired:
        raise explain(target.name, 255, f"{target.host} port {target.port}: timed out") from None
    found = {parts[1]: parts[2] for parts in (line.split() for line in done.stdout.splitlines() if not line.startswith("#")) if len(parts) == 3}
    for kind in KINDS:
        if kind in found:
            return f"{kind} {found[kind]}"
    raise explain(target.name, 255, done.stderr or f"{target.host} port {target.port}: no answer, timed out")


def fingerprint(host_key: str) -> str:
    """SHA256:… as `ssh-keygen -l` shows it. Raises StateError for a line that is no key."""
    try:
        raw = base64.b64decode(host_key.split()[1], validate=True)
    except (IndexError, binascii.Error):
        hint = 'known_host is "ssh-ed25519 AAAA…", as in /etc/ssh/ssh_host_ed25519_key.pub on the box'
        raise StateError(f"{host_key!r:.60} is no host key", hint=hint, code="HOST_KEY_FORM") from None
    return "SHA256:" + base64.b64encode(hashlib.sha256(raw).digest()).decode().rstrip("=")


def pin_host_key(home: Home, target: str, host_key: str) -> None:
    """From now on only a box with this key is the target."""
    path = pinned_path(home, target)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    replace_file(path, f"{host_key}\n")


def box_config(config: Config, target: TargetConfig) -> str:
    """config.json of the serving box: the same base, its folder, and whose releases it trusts."""
    parent = str(PurePosixPath(target.path).parent)
    values: dict[str, object] = {"home": parent, "models_dir": f"{parent}/models", "model_name": base_folder(config).name}
    if is_hub_id(config.model_path):
        values["model_path"] = config.model_path
    if config.backend != "auto":
        values["backend"] = config.backend
    values |= {"serving.home": target.path, "serving.trust": f"{target.path}/trust"}
    return json.dumps(values, indent=1) + "\n"


def box_script(config: Config, target: TargetConfig, keys: Mapping[Way, KeyPair], *more: Mapping[Way, KeyPair]) -> str:
    """What is to be run on the box, in sh. A repeat changes nothing. `more`: further pairs that are let in beside `keys`, while keys are rotated."""
    release_pub = (Path(config.home) / "keys" / PUBLIC).read_text()
    lines = [line for pair in (keys, *more) for line in authorized_lines(target, dict(pair))]
    own = f" {MARK}-{target.name}-"
    return SCRIPT.format(
        user=shlex.quote(target.user),
        path=shlex.quote(target.path),
        own=shlex.quote(own),
        lines="\n".join(lines),
        release_pub=release_pub.strip(),
        config=box_config(config, target).strip(),
        stock=STOCK,
        name=target.name,
    )


SCRIPT = """\
#!/bin/sh
# Makes this machine the target {name} of a training box. Run it as root, or as the user of the target. A repeat changes nothing.
set -eu
umask 022
user={user} path={path} own={own}
home=$(getent passwd "$user" | cut -d: -f6)
[ -n "$home" ] || {{ echo "no user $user here: scripts/install --inference makes it, or name another one in the config of the target" >&2; exit 1; }}
case $(getent passwd "$user" | cut -d: -f7) in
  */nologin|*/false) echo "the shell of $user lets no ssh command through: usermod --shell /bin/sh $user" >&2; exit 1 ;;
esac
command -v rrsync > /dev/null || {{ echo "no rrsync here: install rsync 3.2.7 or newer" >&2; exit 1; }}
mine() {{ [ "$(id -u)" != 0 ] || chown "$user:" "$@"; }}
for folder in "$path" "$path/in" "$path/in/incoming" "$path/in/bases" "$path/out" "$path/trust"; do
  [ -d "$folder" ] || {{ mkdir -p "$folder"; mine "$folder"; echo "made $folder"; }}
done
cat > "$path/trust/release.pub" <<'END'
{release_pub}
END
if [ -d /etc/lorad ]; then config=/etc/lorad/config.json; else config=$path/config.json; fi
if [ -e "$config" ] && grep -q {stock} "$config"; then
  echo "kept $config: it must set serving.home to $path and serving.trust to $path/trust"
else
  cat > "$config" <<'END'
{config}
END
  echo "wrote $config"
fi
mkdir -p "$home/.ssh"; chmod 700 "$home/.ssh"; mine "$home/.ssh"
keys=$home/.ssh/authorized_keys
touch "$keys"
grep -vF -- "$own" "$keys" > "$keys.new" || true
cat >> "$keys.new" <<'END'
{lines}
END
chmod 600 "$keys.new"; mine "$keys.new"; mv "$keys.new" "$keys"
echo "the two keys of {name} are in $keys; next: lorad serve --config $config (systemctl restart lorad-serve)"
"""
