"""`greysheep doctor`: what a bug report should say."""

import typer


def doctor() -> None:
    """Print what greysheep runs on, and the exact fix for whatever is set wrong."""
    from greysheep.doctor import facts

    for fact in facts():
        typer.echo(str(fact))
