"""What the bits of a GGUF model hang on, in words that the next process finds again."""

from importlib import metadata

from milepost.disk import ModelFacts
from milepost.engines.llamacpp.driver import LlamaDriver
from milepost.engines.llamacpp.identity import model_files, whole_files_digest
from milepost.engines.prefill import Numerics

__all__ = ["model_facts"]


def model_facts(driver: LlamaDriver, *, numerics: Numerics, segment_tokens: int) -> ModelFacts:
    """Return what states of this model, with this llama.cpp and on this machine, hang on.

    Complexity: O(bytes of its files), every one of which is read.
    """
    model, options, cuts = driver.model, driver.options, driver.cuts
    return ModelFacts(
        name=model.path.name,
        facts={
            "engine": "llama.cpp",
            "weights": whole_files_digest(model_files(model.path)),
            "keys": options.kv_types.keys,
            "values": options.kv_types.values,
            "is_repacked": str(model.is_repacked),
            "threads": str(options.num_threads),
            "numerics": str(numerics),
            "cuts": f"every {cuts.every}, grid {cuts.grid}, least {cuts.least}",
            "segment_tokens": str(segment_tokens),
            "milepost": metadata.version("milepost"),
            "llama-cpp-python": model.library.__version__,
            # Which instructions it was built for, and which of them this processor has.
            "system": model.library.llama_print_system_info().decode(errors="replace"),
        },
    )
