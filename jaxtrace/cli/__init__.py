"""The command line: one module for each verb or a few related ones; each calls the library."""

from jaxtrace.cli.app import main as main
