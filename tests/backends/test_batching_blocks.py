"""Blocks: counted references, names, and who is evicted first."""

from array import array

from ore.backends.local.batching.blocks import BlockPool, BlockTable


def filled(pool: BlockPool, tokens: list[int], key: str = "") -> BlockTable:
    table = BlockTable(pool, key)
    table.match(tokens, 0)
    assert table.reserve(len(tokens))
    table.publish(tokens, len(tokens))
    return table


def test_shared_blocks_are_free_when_nobody_holds_them() -> None:
    """A block with two holders is free after the second has gone."""
    pool = BlockPool(4, 2)
    tables = [filled(pool, [1, 2, 3, 4, 5]) for _ in range(2)]
    assert tables[0].blocks[:2] == tables[1].blocks[:2]
    assert pool.available == 0
    tables[0].release()
    assert pool.available == 1
    tables[1].release()
    tables[1].release()
    assert pool.available == 4


def test_the_oldest_name_is_forgotten_first() -> None:
    """And of one sequence the last block, without which the first is still of use."""
    pool = BlockPool(4, 2)
    filled(pool, [1, 2, 3, 4]).release()
    filled(pool, [5, 6, 7, 8]).release()
    filled(pool, [9, 9]).release()
    assert BlockTable(pool, "").match([1, 2, 3, 4, 0], 0) == 2
    assert BlockTable(pool, "").match([5, 6, 7, 8, 0], 0) == 4


def test_keys_and_prefixes_are_part_of_a_name() -> None:
    """The same tokens after others, or for another key, are other blocks."""
    pool = BlockPool(8, 2)
    filled(pool, [1, 2, 3, 4], "a")
    assert BlockTable(pool, "b").match([1, 2, 3, 4, 5], 0) == 0
    assert BlockTable(pool, "a").match([3, 4, 3, 4, 5], 0) == 0
    assert BlockTable(pool, "a").match([1, 2, 3, 4], 0) == 2
    assert array("I").itemsize == 4


def test_what_is_held_is_never_taken() -> None:
    """A pool whose blocks are all held has none to give."""
    pool = BlockPool(2, 2)
    table = filled(pool, [1, 2, 3, 4])
    assert pool.take() is None
    assert not BlockTable(pool, "").reserve(1)
    table.release()
    assert pool.take() is not None
