"""The arguments and options that all commands of `kubectl diffcache` have."""

from __future__ import annotations

from typing import Annotated

import typer

NameArgument = Annotated[str, typer.Argument(help="The DiffusionCache.", show_default=False)]
NamespaceOption = Annotated[str, typer.Option("--namespace", "-n", help="Default: the context's.", show_default=False)]
ContextOption = Annotated[str, typer.Option("--context", help="Of the kubeconfig.", show_default=False)]
KubeconfigOption = Annotated[str, typer.Option("--kubeconfig", help="File that names clusters.", show_default=False)]
