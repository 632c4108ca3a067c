"""What a run knows of its writing models: whom it asks, how many fits they may take, when they have had their say."""

from __future__ import annotations

from agentlab.archive import Archive
from agentlab.discover_book import DRY, EARN, FATAL, HIT, SETTLED, START, Book
from agentlab.proposers._writing import Draft, Failure
from agentlab.types import Entry, Outcome, Proposal


def draft(name: str) -> Draft:
    return Draft(name, name, "rewrite", (), f"idea of {name}")


def commit(book: Book, archive: Archive, index: int, objective: float, call: int | None = None) -> None:
    proposal = Proposal(index, "fit.laws", f"law{index}", f"law{index}", "test", "seed", (), index % 5, call)
    entry = Entry(index, proposal, Outcome("ok", "", objective, 10.0, 2, 5, str(index)))
    archive.add(entry)
    book.committed(entry, archive)


def asked(book: Book, call: int, costs: tuple[float, ...], goods: tuple[bool, ...], archive: Archive) -> int:
    """One call: whom the book chooses; its one proposal is among the best, or far from them."""
    model = book.choose(call, costs)
    assert model is not None
    book.sent(call, model)
    book.took(call, [draft(f"d{call}")], [], costs[model])
    (queued,) = book.draw(1, archive, ())
    index = len(archive)
    book.proposed(index, queued)
    commit(book, archive, index, -1000.0 - call if goods[model] else 1000.0 + call, call)
    return model


def settled(book: Book) -> Archive:
    archive = Archive()
    for i in range(SETTLED):
        commit(book, archive, i, float(i))
    return archive


def test_a_model_whose_proposals_are_among_the_best_is_asked_more_often() -> None:
    book = Book(2, seed=1)
    archive = settled(book)
    chosen = [asked(book, call, (1.0, 1.0), (False, True), archive) for call in range(60)]
    assert sum(chosen[20:]) >= 32, "of the last 40 calls"
    assert book.hits == book.arms[1].hits
    assert book.arms[0].hits == 0


def test_of_two_models_that_are_as_good_the_cheaper_one_is_asked_more_often() -> None:
    book = Book(2, seed=2)
    archive = settled(book)
    chosen = [asked(book, call, (5.0, 1.0), (True, True), archive) for call in range(60)]
    assert sum(chosen) >= 45


def test_a_writer_without_a_hit_takes_few_fits_and_one_with_hits_earns_more() -> None:
    book = Book(1, seed=0)
    assert book.allowance(0) == int(START)
    assert book.allowance(1000) == int(START + 1000 * EARN) <= 0.07 * 1000
    archive = settled(book)
    before = book.allowance(len(archive))
    asked(book, 0, (1.0,), (True,), archive)
    assert book.allowance(len(archive)) >= before + 4


def test_an_idea_that_worked_is_told_with_what_it_gained() -> None:
    book = Book(1, seed=0)
    archive = settled(book)
    asked(book, 0, (1.0,), (True,), archive)
    asked(book, 1, (1.0,), (False,), archive)
    assert [(idea, round(gain)) for idea, gain in book.worked] == [("idea of d0", 1000)]


def test_a_hit_needs_company_to_be_among_the_best_of() -> None:
    book = Book(1, seed=0)
    archive = Archive()
    for call in range(HIT):
        asked(book, call, (1.0,), (True,), archive)
    assert book.hits == 0


def test_a_model_that_fails_again_and_again_is_asked_no_more_and_one_that_recovers_is() -> None:
    book = Book(2, seed=0)
    for call in range(3):
        book.sent(call, 0)
        book.failed(call, FATAL[0], 0.0)
    assert book.arms[0].out
    for call in range(3, 8):
        book.sent(call, 1)
        book.failed(call, "time-out", 0.0)
    assert not book.arms[1].out
    book.sent(8, 1)
    book.took(8, [draft("x")], [], 1.0)
    book.sent(9, 1)
    book.failed(9, "time-out", 0.0)
    assert not book.arms[1].out
    assert {book.choose(call, (1.0, 1.0)) for call in range(20)} == {1}


def test_drafts_that_the_search_found_itself_are_dropped_and_replies_without_any_are_counted() -> None:
    book = Book(1, seed=0)
    archive = settled(book)
    book.sent(0, 0)
    book.took(0, [draft("law3"), draft("new"), draft("under way")], [], 1.0)
    assert [q.draft.text for q in book.draw(5, archive, {"under way"})] == ["new"]
    for call in range(1, DRY + 1):
        book.sent(call, 0)
        book.took(call, [], [Failure("said", "reply: no JSON")], 1.0)
    assert book.dry == DRY
    assert book.failures[-1].reason == "reply: no JSON"
