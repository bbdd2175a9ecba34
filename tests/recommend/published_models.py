"""Configurations of published models, as far as footprints read them."""

# The language model of Qwen3.5-4B, as published.
QWEN35_4B = {
    "model_type": "qwen3_5_text",
    "dtype": "bfloat16",
    "hidden_size": 2560,
    "intermediate_size": 9216,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
}
