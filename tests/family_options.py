"""What a tiny model of each family is made from: 256 tokens, hidden size 64, four layers of every kind."""

from typing import Any

__all__ = ["COMMON", "OPTIONS", "VOCABULARY_SIZE"]

VOCABULARY_SIZE = 256
CHUNK_SIZE = 64
SLIDING_WINDOW = 96

COMMON = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GATED_DELTA_NET = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 24,
}
_MAMBA2_BLOCK = {
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_d_state": 32,
    "mamba_n_groups": 2,
    "mamba_expand": 2,
    "mamba_chunk_size": CHUNK_SIZE,
}
_MAMBA1 = {"state_size": 8, "expand": 2, "num_hidden_layers": 4, "residual_in_fp32": False}
_ATTENTION = {"num_attention_heads": 4, "num_key_value_heads": 2}
_MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
_FOUR_LAYERS = {
    "num_hidden_layers": 4,
    "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
}
_MIXED_WINDOWS = {
    "num_hidden_layers": 4,
    "sliding_window": SLIDING_WINDOW,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
}

_INKLING = {
    "num_hidden_layers": 4,
    "layer_types": ["hybrid", "hybrid_sliding", "hybrid", "hybrid_sliding"],
    "unpadded_vocab_size": VOCABULARY_SIZE,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 2,
    "swa_head_dim": 16,
    "sliding_window_size": SLIDING_WINDOW,
    "d_rel": 8,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 48,
}
_KDA = {
    "num_hidden_layers": 4,
    "intermediate_size": 96,
    "moe_intermediate_size": 48,
    "kv_lora_rank": 24,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
}

_NEMOTRON_H = _ATTENTION | {
    "layers_block_type": ["linear_attention", "moe", "linear_attention", "full_attention", "mlp"],
    "head_dim": 16,
    "intermediate_size": 96,
    "ssm_state_size": 32,
    "mamba_num_heads": 8,
    "mamba_head_dim": 16,
    "n_groups": 2,
    "chunk_size": CHUNK_SIZE,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 48,
    "moe_shared_expert_intermediate_size": 40,
}
_MEDIA_TOKENS = {"image_token_id": 250, "video_token_id": 251}

OPTIONS: dict[str, dict[str, Any]] = {
    "qwen3_next": _FOUR_LAYERS
    | _ATTENTION
    | _GATED_DELTA_NET
    | _MOE
    | {"head_dim": 32, "intermediate_size": 96, "shared_expert_intermediate_size": 40},
    "qwen3_5": _FOUR_LAYERS | _ATTENTION | _GATED_DELTA_NET | {"head_dim": 32, "intermediate_size": 96},
    "qwen3_5_moe": _FOUR_LAYERS
    | _ATTENTION
    | _GATED_DELTA_NET
    | _MOE
    | {"head_dim": 32, "shared_expert_intermediate_size": 40},
    "olmo_hybrid": _FOUR_LAYERS | _ATTENTION | _GATED_DELTA_NET | {"intermediate_size": 96},
    "kimi_linear": _FOUR_LAYERS
    | {
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "intermediate_size": 96,
        "moe_intermediate_size": 48,
        "kv_lora_rank": 24,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 16,
        "v_head_dim": 16,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "linear_head_dim": 16,
        "linear_num_heads": 4,
    },
    "mamba2": {
        "num_hidden_layers": 4,
        "num_heads": 8,
        "head_dim": 16,
        "state_size": 32,
        "n_groups": 2,
        "expand": 2,
        "chunk_size": CHUNK_SIZE,
        "residual_in_fp32": False,
    },
    "falcon_h1": _ATTENTION
    | _MAMBA2_BLOCK
    | {"num_hidden_layers": 4, "mamba_d_ssm": 128, "head_dim": 16, "intermediate_size": 96},
    "granitemoehybrid": _FOUR_LAYERS
    | _ATTENTION
    | _MAMBA2_BLOCK
    | {
        "intermediate_size": 48,
        "shared_intermediate_size": 40,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "attention_multiplier": 0.25,
    },
    "nemotron_h": _NEMOTRON_H,
    "zamba2": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
        "num_attention_heads": 4,
        "mamba_d_state": 32,
        "n_mamba_heads": 8,
        "mamba_ngroups": 2,
        "chunk_size": CHUNK_SIZE,
        "intermediate_size": 96,
        "num_mem_blocks": 1,
        "adapter_rank": 8,
        "use_mem_rope": True,
    },
    "lfm2": _ATTENTION
    | {
        "num_hidden_layers": 4,
        "layer_types": ["conv", "conv", "full_attention", "conv"],
        "intermediate_size": 96,
        "block_auto_adjust_ff_dim": False,
    },
    "lfm2_moe": _ATTENTION
    | _MOE
    | {
        "num_hidden_layers": 4,
        "layer_types": ["conv", "conv", "full_attention", "conv"],
        "intermediate_size": 96,
        "num_dense_layers": 1,
    },
    "bailing_hybrid": _KDA
    | {
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "layer_group_size": 4,
        "head_dim": 16,
        "n_group": 2,
        "topk_group": 1,
        "first_k_dense_replace": 1,
    },
    "qwen4_exp": _FOUR_LAYERS
    | _ATTENTION
    | _GATED_DELTA_NET
    | _MOE
    | {
        "layer_types": ["linear_attention", "linear_attention", "linear_attention", "indexed_attention"],
        "head_dim": 32,
        "shared_expert_intermediate_size": 40,
        "hc_count": 2,
        "hc_lowrank": 16,
        "ple_layer_ids": [2],
        "ple_embed_dim": 64,
        "ngram_vocab_size_base": 100,
        "heads_per_ngram": 4,
        "split_ngram_parts": 1,
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 32,
        "indexer_budget": 64,
        "indexer_compress_ratio": 4,
    },
    "lfm3": _ATTENTION
    | {
        "num_hidden_layers": 4,
        "layer_types": ["conv", "conv", "full_attention", "sliding_attention"],
        "head_dim": 16,
        "intermediate_size": 96,
        "sliding_window": SLIDING_WINDOW,
    },
    "zaya": _ATTENTION
    | {
        "num_hidden_layers": 4,
        "layer_types": ["hybrid", "hybrid_sliding", "hybrid", "hybrid_sliding"],
        "head_dim": 16,
        "sliding_window": SLIDING_WINDOW,
        "moe_intermediate_size": 48,
        "num_experts": 4,
        "router_hidden_size": 16,
    },
    "inkling": _INKLING | {"intermediate_size": 96, "n_shared_experts": 1, "rel_extent": 64},
    "inkling2": _INKLING | {"rel_extent": 64, "n_layers_per_attn_res_block": 1},
    "inkling2_loop": _INKLING
    | {
        "rel_extent": 64,
        "loop_layer_index_start": 1,
        "loop_layer_index_end": 3,
        "loop_num_passes": 2,
        "loop_gate_rank": 8,
        "n_layers_per_attn_res_block": 1,
    },
    # Two that are published with a class for images and text alone.
    "glm5_next": _MEDIA_TOKENS
    | {
        "text_config": COMMON
        | _KDA
        | {
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "q_lora_rank": 16,
            "qk_rope_head_dim": 0,
            "linear_head_dim": 16,
            "linear_num_heads": 4,
            "index_topk": 64,
            "index_head_dim": 16,
            "index_n_heads": 2,
            "index_kpool": 4,
            "hc_mult": 2,
            "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
        },
        "vision_config": {
            "depth": 1,
            "hidden_size": 32,
            "num_heads": 2,
            "out_hidden_size": 64,
            "intermediate_size": 32,
            "projection_intermediate_size": 32,
            "image_size": 28,
        },
        "image_start_token_id": 252,
        "image_end_token_id": 253,
        "video_start_token_id": 254,
        "video_end_token_id": 255,
    },
    "nemotron_h_omni": _MEDIA_TOKENS
    | {
        "text_config": COMMON | _NEMOTRON_H | {"model_type": "nemotron_h"},
        "vision_config": {
            "model_type": "radio",
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "video_temporal_patch_size": 2,
            "patch_size": 16,
            "image_size": 32,
        },
        "projector_hidden_size": 32,
        "vision_hidden_size": 32,
        "audio_token_id": 252,
    },
    "lara_mini": _ATTENTION
    | _GATED_DELTA_NET
    | _MOE
    | {
        "num_hidden_layers": 4,
        "layer_types": ["linear_attention", "sliding_attention", "linear_attention", "full_attention"],
        "head_dim": 32,
        "shared_expert_intermediate_size": 40,
        "sliding_window": SLIDING_WINDOW,
    },
    # Half the hidden size must be a multiple of 64: the cache rounds the key size up, the layers do not.
    "xlstm": {"num_hidden_layers": 4, "hidden_size": 128, "num_heads": 4, "chunk_size": CHUNK_SIZE},
    "rwkv": {"num_hidden_layers": 4, "attention_hidden_size": 64, "intermediate_size": 96},
    "qwen3": _ATTENTION | {"num_hidden_layers": 4, "head_dim": 16, "intermediate_size": 96},
    "gpt_oss": _ATTENTION
    | _MIXED_WINDOWS
    | {"head_dim": 16, "intermediate_size": 48, "num_local_experts": 4, "num_experts_per_tok": 2},
    "gemma3": _ATTENTION
    | _MIXED_WINDOWS
    | {"head_dim": 16, "intermediate_size": 96, "query_pre_attn_scalar": 16},
    "mamba": _MAMBA1,
    "falcon_mamba": _MAMBA1,
    "jamba": _ATTENTION
    | {
        "num_hidden_layers": 4,
        "intermediate_size": 48,
        "attn_layer_period": 4,
        "attn_layer_offset": 2,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "mamba_d_state": 8,
    },
    "zamba": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "attention_head_dim": 32,
        "intermediate_size": 96,
        "n_mamba_heads": 2,
        "mamba_d_state": 8,
    },
    "recurrent_gemma": {
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "intermediate_size": 96,
        "lru_width": 64,
        "attention_window_size": SLIDING_WINDOW,
    },
    "minimax": _ATTENTION
    | {
        "num_hidden_layers": 4,
        "layer_types": ["linear_attention", "full_attention", "linear_attention", "full_attention"],
        "head_dim": 16,
        "intermediate_size": 48,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "block_size": CHUNK_SIZE,
    },
    "bamba": _ATTENTION
    | _MAMBA2_BLOCK
    | {"num_hidden_layers": 4, "attn_layer_indices": [2], "intermediate_size": 96},
}
