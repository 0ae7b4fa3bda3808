"""diffcache up"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffcache.manifests import ManifestOption, NameOption
from diffcache.output import bad_option
from diffcache.paths import named_path
from diffcache_core.names import ADMIN_PORT, GRPC_PORT, METRICS_PORT


def up(
    manifest: ManifestOption,
    name: NameOption = "",
    data_dir: Annotated[
        Path | None,
        typer.Option(
            parser=named_path,
            help="Where the cache lies; by default in the user's data folder, by the manifest's name.",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address that serves pictures and metrics; `::` for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the pictures (gRPC).")] = GRPC_PORT,
    admin_host: Annotated[str, typer.Option(help="Address of the admin endpoint, which shows prompts.")] = "127.0.0.1",
    admin_port: Annotated[int, typer.Option(min=1, max=65535, help="Of the admin endpoint (gRPC).")] = ADMIN_PORT,
    metrics_port: Annotated[int, typer.Option(min=1, max=65535, help="Of the metrics (HTTP).")] = METRICS_PORT,
    tls_certificate: Annotated[
        Path | None, typer.Option(parser=named_path, help="PEM file: serve pictures over TLS.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(parser=named_path, help="PEM file of its key.")] = None,
) -> None:
    """Serve a manifest on this machine until Ctrl-C, with an embedded Milvus Lite: no cluster needed."""
    from diffcache.local import serve_manifest
    from diffcache_core.serving_config import ListenConfig

    if (tls_certificate is None) != (tls_key is None):
        raise bad_option("give --tls-certificate and --tls-key together")
    listen = ListenConfig(
        host=host,
        port=port,
        admin_host=admin_host,
        admin_port=admin_port,
        metrics_host=host,
        metrics_port=metrics_port,
        tls_certificate=str(tls_certificate or ""),
        tls_key=str(tls_key or ""),
    )
    serve_manifest(manifest, data_dir, listen, name)
