"""The command `report`: one report on several workdirs."""

from etils import epath

from ssl_extract.cli import arguments
from ssl_extract.errors import UserError


def main(argv: list[str]) -> int:
    """Writes the report that the flags describe and prints its path.

    Args:
        argv: the program's name, workdirs and flags.

    Returns:
        The exit code 0.

    Raises:
        UserError: a workdir or a flag is missing or wrong.
    """
    values = arguments.new_values('report')
    words = arguments.parse(values, argv)
    workdirs = [epath.Path(word).expanduser() for word in words]
    if not workdirs:
        raise UserError('report: name the workdirs, as in report runs/a runs/b --out=runs/both')
    for word, workdir in zip(words, workdirs, strict=True):
        if not word or not workdir.is_dir():
            raise UserError(f'report {word!r}: there is no such folder')
    if len(workdirs) > 1 and not values.out:
        raise UserError(f'report: {len(workdirs)} workdirs: write --out=DIR, where to put it')
    out = epath.Path(values.out or workdirs[0]).expanduser()

    from ssl_extract import report  # matplotlib takes seconds

    report.write_from(out, workdirs, values.title or out.absolute().name)
    print(f'report: {out / "report.html"}')
    return 0
