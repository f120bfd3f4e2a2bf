"""The command on the installation: doctor. It starts where packages are missing or broken."""

import typer

from ablate.cli.console import console, plain_table, print_json
from ablate.cli.options import Json
from ablate.errors import AblateError

app = typer.Typer()


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check the installation and this machine.

    Exits with 1 if something is broken: an outdated package, a GPU that torch cannot use, a full disk, ...

    Example: ablate doctor
    """
    from ablate.engine.doctor import examine

    findings = examine()
    broken = {about for about, finding in findings if finding.status == "broken"}
    if as_json:
        print_json([{"about": about, **vars(finding)} for about, finding in findings])
    else:
        table = plain_table("status", "about", "found")
        for about, finding in findings:
            table.add_row(finding.status, about, finding.found)
            if finding.mend:
                table.add_row("", "", f"-> {finding.mend}")
        console.print(table)
    if broken:
        raise AblateError(f"something is broken: {', '.join(sorted(broken))}")
