def test_the_model_is_listed_under_its_name(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "milepost"


def test_tokens_are_those_of_the_template(http):
    plain = http.post("/tokenize", json={"prompt": "hé"}).json()
    assert plain["count"] == 3
    chat = http.post("/tokenize", json={"messages": [{"role": "user", "content": "hé"}]}).json()
    text = http.post("/detokenize", json={"tokens": chat["tokens"]}).json()["prompt"]
    assert text == "<|im_start|>user\nhé<|im_end|>\n<|im_start|>assistant\n"
    assert chat["max_model_len"] == 8192


def test_tokens_of_two_prompts_at_once_are_refused(http):
    both = {"prompt": "a", "messages": [{"role": "user", "content": "b"}]}
    for body in (both, {}):
        answer = http.post("/tokenize", json=body)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "prompt"


def test_health_says_what_runs(http):
    assert http.get("/health").json() == {"status": "ok", "running": 0, "waiting": 0}
