"""`produce studio`."""

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from feature_repo import config, schema
from feature_repo.console import StoreOption, print_notice
from feature_repo.errors import UsageError
from feature_repo.server_options import (
    MAX_PORT,
    AccessLogOption,
    ConnectionsOption,
    HostOption,
    TlsCertificateOption,
    TlsKeyOption,
    TokenFileOption,
    check_tls_files,
    describe_address,
)
from feature_repo.serving_limits import CaptionLimits, ConnectionLimits, PictureLimits

MIN_PROBABILITY = 0.9
"""No line states what is less probable."""


def studio(
    encoder: Annotated[
        str,
        typer.Option(
            help="A checkpoint with a language head: `produce encoder --objectives contrastive,words,language`."
        ),
    ],
    words: Annotated[Path, typer.Option(help="Parquet or CSV: attribute, value, word: as for `produce captions`.")],
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Labels, as for `produce tags`: also caption pictures of other products. Without it they are refused."
        ),
    ] = None,
    tags_encoder: Annotated[
        str | None,
        typer.Option(help="With --labels: checkpoint of the encoder in production.", show_default="as --encoder"),
    ] = None,
    language: Annotated[str, typer.Option(help="Language of lines if the request has none: zh or en.")] = "zh",
    min_probability: Annotated[
        float,
        typer.Option(
            min=MIN_PROBABILITY, max=1.0, help="State an attribute only if its value is at least this probable."
        ),
    ] = MIN_PROBABILITY,
    picture_model: Annotated[
        Path | None,
        typer.Option(help="A Stable Diffusion 1.x or 2.x checkpoint in the form of diffusers: generate pictures."),
    ] = None,
    serve_url: Annotated[
        str | None,
        typer.Option(help="Address of `consume serve --pages`, such as https://HOST:PORT: pages link to it."),
    ] = None,
    host: HostOption = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=MAX_PORT, help="Port of HTTP. 0: any free port.")] = 8081,
    token_file: TokenFileOption = None,
    tls_certificate: TlsCertificateOption = None,
    tls_key: TlsKeyOption = None,
    connections: ConnectionsOption = ConnectionLimits.max_connections,
    queue_size: Annotated[
        int,
        typer.Option(
            min=1, help="Maximum number of requests for captions in progress or waiting. Further ones get 503."
        ),
    ] = CaptionLimits.queue_size,
    deadline: Annotated[
        float, typer.Option(min=0.1, help="Time limit of a request for captions, in seconds.")
    ] = CaptionLimits.deadline_seconds,
    picture_queue: Annotated[
        int, typer.Option(min=1, help="Maximum number of waiting jobs that generate pictures. Further ones get 503.")
    ] = PictureLimits.queue_size,
    max_steps: Annotated[
        int, typer.Option(min=1, max=150, help="Maximum number of steps of the sampler.")
    ] = PictureLimits.max_steps,
    max_count: Annotated[
        int, typer.Option(min=1, max=64, help="Maximum number of pictures of one job.")
    ] = PictureLimits.max_count,
    max_side: Annotated[
        int, typer.Option(min=8, max=1024, help="Largest height and width of a generated picture, in pixels.")
    ] = PictureLimits.max_side,
    keep_jobs: Annotated[
        int, typer.Option(min=1, help="Maximum number of ended jobs that are kept.")
    ] = PictureLimits.max_jobs,
    keep_days: Annotated[
        float, typer.Option(min=0.0, help="Days for which ended jobs are kept.")
    ] = PictureLimits.max_age_days,
    access_log: AccessLogOption = "-",
    store: StoreOption = None,
) -> None:
    """Serve caption lines and generated pictures to merchants, over HTTP and as pages (docs/how-to/studio.md).

    Merchants edit lines on a page; `produce captions --export-edits` writes the edits to a file to learn from. With
    --picture-model, pictures are generated from sentences, one job after the other.
    """
    check_tls_files(tls_certificate, tls_key)
    if language not in schema.CAPTION_LANGUAGES:
        raise UsageError(f"--language is `{language}`; expected {' or '.join(schema.CAPTION_LANGUAGES)}")
    if tags_encoder is not None and labels is None:
        raise UsageError("--tags-encoder needs --labels, from which the taggers learn")
    from feature_repo import extras
    from feature_repo.auth import ServerAccess, TlsCertificate, read_token

    extras.require("serve", "fastapi", "uvicorn", "httptools", "prometheus_client", "jinja2", "python_multipart")
    certificate = TlsCertificate(tls_certificate, tls_key) if tls_certificate and tls_key else None
    access = ServerAccess(host, read_token(token_file), certificate)
    from producers.captions.prompts import CaptionOptions
    from producers.studio.run import StudioOptions, serve_studio

    options = StudioOptions(
        deployment=config.load(store),
        encoder=encoder,
        words=words,
        labels=labels,
        tags_encoder=tags_encoder,
        picture_model=picture_model,
        captions=CaptionOptions(language=language, min_probability=min_probability),
        caption_limits=CaptionLimits(queue_size=queue_size, deadline_seconds=deadline),
        picture_limits=PictureLimits(
            max_steps=max_steps,
            max_count=max_count,
            max_side=max_side,
            queue_size=picture_queue,
            max_jobs=keep_jobs,
            max_age_days=keep_days,
        ),
        connections=ConnectionLimits(max_connections=connections),
        access=access,
        port=port,
        access_log=access_log,
        serve_url=None if serve_url is None else _check_url(serve_url),
    )
    serve_studio(options, lambda address: print_notice(f"serving {describe_address('http', address)}"))


def _check_url(url: str) -> str:
    """Return an address without a slash at its end."""
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment)
    except ValueError:
        is_address = False
    if not is_address:
        raise UsageError(f"--serve-url is `{url}`; expected http://HOST:PORT or https://HOST")
    return url.rstrip("/")
