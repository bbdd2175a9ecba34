"""A tokenizer for tiny models: one token a character, Latin-1, nothing to download."""


class Characters:
    def encode(self, text):
        return list(text.encode("latin-1"))

    def decode(self, token_ids):
        return bytes(token_ids).decode("latin-1")
