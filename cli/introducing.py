"""`lorad deploy setup|rotate`: making an inference box known to this one, and changing the keys between them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import config_option

if TYPE_CHECKING:
    from core.config import Config
    from core.deployment import TargetConfig
    from deploy.confinement import KeyPair
    from deploy.ssh import Way
    from store.paths import Home


@click.command()
@click.argument("target")
@click.option("--script", is_flag=True, help="Print what is to be run on the box, and nothing else.")
@click.option("--yes", is_flag=True, help="Pin the host key that the box shows now, without asking.")
@click.option("--repin", is_flag=True, help="Pin anew: the box was set up again and has another host key.")
@config_option
def setup(target: str, script: bool, yes: bool, repin: bool, config: str | None) -> None:
    """Make the two keys of a target, pin its host key, and say what to run there. A repeat changes nothing.

    \b
    lorad deploy setup cellar
    lorad deploy setup cellar --script | ssh root@cellar sh
    """
    from deploy.confinement import authorized_lines, keys_of
    from deploy.introduction import box_script

    loaded, found, home = _found(target, config)
    if found.kind == "local":
        from store.paths import Box

        Box(Path(found.path)).prepare()
        click.echo(f"target {found.name} is the folder {found.path} of this machine: it is there; next: lorad serve")
        return
    keys = keys_of(found, home)
    if script:
        click.echo(box_script(loaded, found, keys), nl=False)
        return
    _pin(found, home, yes=yes, repin=repin)
    click.echo(f"keys of {found.name}: {keys['in'].private} writes in/, {keys['out'].private} reads out/")
    click.echo(f"\nTwo lines for authorized_keys of {found.user} on {found.host}:\n")
    click.echo("\n".join(authorized_lines(found, keys)))
    click.echo(f"\nThey, release.pub and a config are brought there by:\n  lorad deploy setup {found.name} --script | ssh root@{found.host} sh")
    click.echo(f"then: lorad deploy check {found.name}")


def _pin(target: "TargetConfig", home: "Home", *, yes: bool, repin: bool) -> None:
    """Show the fingerprint, ask, and pin; a pinned key stays unless `repin`. Raises TransferError where the box does not answer."""
    from deploy.introduction import fingerprint, pin_host_key, scan_host_key
    from deploy.ssh import hang_up, pinned_of

    known = target.known_host or pinned_of(home, target.name)
    if known and not repin:
        click.echo(f"host key of {target.host}: {fingerprint(known)} (pinned)")
        return
    if target.known_host:
        click.echo(f"host key of {target.host}: known_host in the config counts; change it there")
        return
    shown = scan_host_key(target)
    click.echo(f"host key of {target.host}: {fingerprint(shown)} ({shown.split()[0]})\n  compare it there: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub")
    if not yes:
        click.confirm("Is it the same?", abort=True)
    pin_host_key(home, target.name, shown)
    hang_up(target, home)


@click.command()
@click.argument("target")
@click.option("--script", is_flag=True, help="Print what is to be run on the box now, and nothing else.")
@click.option("--finish", is_flag=True, help="From now on the new keys count; refused until the box takes both.")
@config_option
def rotate(target: str, script: bool, finish: bool, config: str | None) -> None:
    """Change the two keys of a target without a gap: make new ones, let them in beside the old, then let the old ones go.

    \b
    lorad deploy rotate cellar --script | ssh root@cellar sh
    lorad deploy rotate cellar --finish
    lorad deploy setup cellar --script | ssh root@cellar sh
    """
    from core.errors import UsageError
    from deploy.confinement import keys_of, new_keys_of
    from deploy.introduction import box_script

    loaded, found, home = _found(target, config)
    if found.kind == "local" or found.key or found.read_key:
        hint = "for keys that the config names: name other files there, and run setup again"
        raise UsageError(f"target {target!r} has no keys that lorad made", hint=hint, code="NO_KEYS_TO_ROTATE")
    if finish:
        _finish(found, home)
        return
    old, new = keys_of(found, home), new_keys_of(found, home)
    if script:
        click.echo(box_script(loaded, found, old, new), nl=False)
        return
    click.echo(f"new keys of {found.name}: {_names(new)}; the old ones count until --finish")
    click.echo(f"let both in: lorad deploy rotate {found.name} --script | ssh root@{found.host} sh\nthen: lorad deploy rotate {found.name} --finish")


def _names(keys: "Mapping[Way, KeyPair]") -> str:
    return ", ".join(str(pair.private) for pair in keys.values())


def _finish(target: "TargetConfig", home: "Home") -> None:
    """Try the new keys, then put them in place of the old. Raises LoradError where the box takes one of them not."""
    from deploy.confinement import new_keys_of, put_in_place
    from deploy.examination import knock
    from deploy.ssh import WAYS, hang_up

    new = new_keys_of(target, home)
    tried = target.model_copy(update={"key": str(new["in"].private), "read_key": str(new["out"].private)})
    for way in WAYS:
        click.echo(knock(tried, home, way).what)
    put_in_place(target, home)
    hang_up(target, home)
    click.echo(f"the new keys of {target.name} count; let the old ones go: lorad deploy setup {target.name} --script | ssh root@{target.host} sh")


def _found(name: str, config: str | None) -> "tuple[Config, TargetConfig, Home]":
    from deploy.link import target_named
    from store.config import ConfigLoader
    from store.keys import ensure_keys
    from store.paths import Home

    loaded = ConfigLoader(config).load().config
    home = Home(Path(loaded.home))
    home.prepare()
    ensure_keys(home.keys)
    return loaded, target_named(loaded.deploy.targets, name), home
