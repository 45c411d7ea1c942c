"""`produce`: the command line that writes features."""

import typer

from feature_repo import console
from producers.commands import (
    adapter,
    captions,
    catalogue,
    codes,
    commit,
    day,
    embeddings,
    encoder,
    evaluate,
    export,
    forget,
    groups,
    hand_out,
    images,
    import_,
    index,
    interests,
    neighbours,
    picture,
    quarantine,
    runs,
    shop,
    stream,
    studio,
    tags,
    upgrade,
    vacuum,
)

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.callback(help="Compute features from a catalogue's images and titles, and from clicks.")(console.configure)
app.command()(day.day)
app.command()(shop.shop)
app.command("import")(import_.import_)
app.command()(images.images)
app.command()(catalogue.catalogue)
app.command()(encoder.encoder)
app.command()(embeddings.embeddings)
app.command()(adapter.adapter)
app.command("hand-out")(hand_out.hand_out)
app.command()(commit.commit)
app.command()(captions.captions)
app.command()(export.export)
app.add_typer(evaluate.app, name="evaluate", help="Measure how well an encoder finds pictures for a sentence.")
app.command()(tags.tags)
app.command()(codes.codes)
app.command()(interests.interests)
app.command()(neighbours.neighbours)
app.command()(groups.groups)
app.command()(index.index)
app.command()(stream.stream)
app.add_typer(picture.app, name="picture", help="Generate pictures from sentences; train and judge the models.")
app.command()(studio.studio)
app.add_typer(upgrade.app, name="upgrade", help="Change the encoder without an outage.")
app.command()(runs.runs)
app.command()(quarantine.quarantine)
app.command()(forget.forget)
app.command()(vacuum.vacuum)


def main() -> None:
    """Run the command line. The console script enters through __main__.py, which also handles Ctrl-C."""
    console.run_command_line(app)


if __name__ == "__main__":
    main()
