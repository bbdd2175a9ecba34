"""Stock's rule leads where memory is short, until the learned one has proved better on the same prompts."""

from random import Random

from small_vllm import SmallVllm


def ask_about_parts(vllm, *, num_requests, seed=0):
    """Serve questions about the first halves of documents: stock keeps the tails, which nobody shares."""
    random = Random(seed)
    documents = [[random.randrange(1000) for _ in range(480)] for _ in range(4)]
    for _ in range(num_requests):
        document = random.choice(documents)
        vllm.serve([*document[:240], *(random.randrange(1000) for _ in range(240))])
        vllm.check()


def leads(vllm) -> bool:
    return vllm.checkpoint_manager.is_led_by_learning


def test_stocks_rule_leads_at_first():
    assert not leads(SmallVllm(has_to_prove_itself=True))


def test_the_learned_rule_leads_where_it_reuses_more():
    vllm = SmallVllm(has_to_prove_itself=True, num_blocks=110, chunk=1000)
    ask_about_parts(vllm, num_requests=60)
    assert leads(vllm)
    before = vllm.checkpoint_manager.statistics().reused
    ask_about_parts(vllm, num_requests=20, seed=0)
    assert vllm.checkpoint_manager.statistics().reused - before > 20 * 100


def test_it_does_not_where_nothing_is_shared():
    vllm = SmallVllm(has_to_prove_itself=True, num_blocks=110, chunk=1000)
    for number in range(40):
        vllm.serve(range(1000 * number, 1000 * number + 300))
    assert not leads(vllm)
    vllm.check()


def test_a_rule_that_does_not_learn_was_asked_for_and_leads():
    assert leads(SmallVllm(has_to_prove_itself=True, policy="dense:16"))


def test_what_was_learned_elsewhere_leads_from_the_start(tmp_path):
    lessons = tmp_path / "lessons.json"
    teacher = SmallVllm(has_to_prove_itself=True, num_blocks=110, chunk=1000, learned=lessons)
    ask_about_parts(teacher, num_requests=40)
    teacher.checkpoint_manager.save()
    assert leads(SmallVllm(has_to_prove_itself=True, num_blocks=110, learned=lessons))


class Scripted:
    """Rivals of whom the test says what they find."""

    def __init__(self, by_learning, by_stock):
        self.found = by_learning, by_stock

    def serve(self, lease):
        return self.found


def serve_against(vllm, *, by_learning, by_stock, num_requests, first):
    """Serve prompts that share nothing, beside rivals who would have found so much of each."""
    vllm.checkpoint_manager._cache.leader._rivals = Scripted(by_learning, by_stock)
    for number in range(first, first + num_requests):
        vllm.serve(range(1000 * number, 1000 * number + 100))


def test_what_it_would_have_found_before_is_no_credit_once_it_leads():
    vllm = SmallVllm(has_to_prove_itself=True, num_blocks=400)
    serve_against(vllm, by_learning=90, by_stock=0, num_requests=50, first=0)
    assert leads(vllm)
    serve_against(vllm, by_learning=0, by_stock=50, num_requests=3, first=100)
    assert leads(vllm), "that may be chance"
    serve_against(vllm, by_learning=0, by_stock=50, num_requests=1, first=200)
    assert not leads(vllm)
    serve_against(vllm, by_learning=90, by_stock=0, num_requests=50, first=300)
    assert leads(vllm), "it may prove itself anew"


def test_an_answer_is_not_held_for_the_comparison_and_the_next_plan_goes_by_it():
    vllm = SmallVllm(has_to_prove_itself=True, num_blocks=110, chunk=1000)
    leader = vllm.checkpoint_manager._cache.leader
    served = []
    serve, leader._rivals.serve = leader._rivals.serve, lambda lease: served.append(lease) or serve(lease)
    vllm.serve(range(300))
    assert served == [], "nothing is played while the answer is held"
    vllm.checkpoint_manager.use_free_time(0)
    assert len(served) == 1
    vllm.serve(range(1000, 1300))
    vllm.serve(range(2000, 2300))
    assert len(served) == 2, "what was not played in time is played before the next plan"


def test_a_prompt_is_played_when_its_answer_is_done():
    vllm = SmallVllm(has_to_prove_itself=True, num_blocks=200, chunk=1000)
    leader = vllm.checkpoint_manager._cache.leader
    first, second = vllm.ask(range(300)), vllm.ask(range(1000, 1300))
    for request in (first, second):
        while request.computed < len(request.tokens):
            assert vllm.step(request)
    vllm.checkpoint_manager.use_free_time(0)
    assert leader._num_prompts == 0
    vllm.finish(first)
    vllm.checkpoint_manager.use_free_time(0)
    assert leader._num_prompts == 2, "both were computed by then"
    vllm.finish(second)


def test_no_answer_that_ends_in_the_same_step_waits_for_the_rules_to_be_compared():
    vllm = SmallVllm(has_to_prove_itself=True, num_blocks=110, chunk=1000)
    leader = vllm.checkpoint_manager._cache.leader
    running = [vllm.ask(range(1000 * number, 1000 * number + 300)) for number in range(2)]
    for request in running:
        assert vllm.step(request)
    for request in running:
        vllm.finish(request)
        assert leader._num_prompts == 0
    assert not leads(vllm), "and to ask who leads plays nothing"
    assert leader._num_prompts == 0
    vllm.checkpoint_manager.use_free_time(0)
    assert leader._num_prompts == 2


def test_before_a_prompt_is_looked_up_it_is_seen_who_leads():
    vllm = SmallVllm(has_to_prove_itself=True, num_blocks=400)
    num_served = 0
    while not leads(vllm):
        serve_against(vllm, by_learning=90, by_stock=0, num_requests=1, first=num_served)
        num_served += 1
        is_ahead = leads(vllm)
        vllm.checkpoint_manager.prepare_lookup()
        assert num_served < 50
    assert not is_ahead, "nothing was compared when the last answer ended"
