"""Which of SGLang's schedulers see the same requests, and which of those speaks for all.

Ranks of one model see the same requests, decide alike and learn the same. Under ``--enable-dp-attention``
there are as many groups of them as replicas of the attention, each with requests of its own; under
``--dp-size`` alone, each replica is a model of its own.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from sglang.srt.runtime_context import derive_attention_ranks, get_parallel

__all__ = ["Rank"]


@final
@dataclass(frozen=True, slots=True)
class Rank:
    """See the module.

    Attributes:
        replica: Which of the replicas that serve other requests it is in.
        is_first: Whether it is the first of its replica, that tells and saves for all of them.
    """

    replica: int
    is_first: bool

    @classmethod
    def of(cls, ctx: Any) -> "Rank":
        """Return the rank of the scheduler whose cache is made from SGLang's ``TreeCacheBuildContext``."""
        parallel = get_parallel()
        size, num_parts = parallel.attn_tp_size, parallel.attn_cp_size
        place, attention_replica = derive_attention_ranks(
            tp_rank=ctx.tp_rank, attn_tp_size=size, attn_cp_size=num_parts
        )
        part = ctx.tp_rank // size % num_parts
        replica = attention_replica if parallel.attn_dp_size > 1 else parallel.dp_rank or 0
        return cls(replica=replica, is_first=place == part == ctx.params.pp_rank == 0)

    def own(self, path: Path) -> Path:
        """Return where its replica keeps what the first replica keeps in ``path``."""
        return path if self.replica == 0 else path.with_name(f"{path.name}.{self.replica}")
