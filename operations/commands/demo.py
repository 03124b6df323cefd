"""`crossfade demo` on the command line. What it shows is in operations/demo."""
import typer

app = typer.Typer()
