"""Flags of XLA's compiler for tests, which run most programs once."""

from importlib.metadata import version

# XLA skips what only makes programs faster, and does not split them for threads that the other workers keep busy.
FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
FLAGS += " --xla_cpu_parallel_codegen_split_count=1"
if tuple(map(int, version("jax").split(".")[:2])) < (0, 11):  # removed in 0.11
    FLAGS += " --xla_cpu_use_fusion_emitters=false"  # these compile each fusion by MLIR: 55 % of the compile time
