"""A run in several processes on this machine, without torchrun: for processors, on which small models gain more from
processes that share a batch than from threads that share a matrix product.
"""

import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

import torch

from crossgrain.config import UserError
from crossgrain.data.loader import usable_cores
from crossgrain.training.distributed import join_world
from crossgrain.training.interrupt import StopSignals

_PATIENCE = 5.0  # seconds that the others have to end after one of them failed


def in_ranks(size: int, work: Callable[..., Any], *arguments: Any) -> Any:
    """What `work(world, *arguments)` returns on rank 0, called in `size` processes that share the cores.

    A UserError of any rank is raised here, and so is a RuntimeError where one ended without a word. A signal that asks
    to stop is passed on, and the work ends as it does when it gets one itself: KeyboardInterrupt where it cannot yet.
    """
    context = multiprocessing.get_context("spawn")
    told = context.SimpleQueue()
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(size)}
    threads = max(1, usable_cores() // size)
    ranks = [
        context.Process(target=_rank, args=(rank, place, threads, told, work, arguments), daemon=False)
        for rank in range(size)
    ]
    with StopSignals() as stop:
        _start(ranks)
        passed_on = False
        while any(process.is_alive() for process in ranks):
            ranks[0].join(0.1)
            if stop.requested and not passed_on:
                passed_on = True
                for process in ranks:
                    process.terminate()
            if any(process.exitcode not in (None, 0) for process in ranks):
                _end(ranks)
    answers: dict[int, tuple[bool, Any]] = {}
    while not told.empty():
        rank, good, answer = told.get()
        answers[rank] = (good, answer)
    if mistakes := [answer for good, answer in answers.values() if not good]:
        raise UserError(mistakes[0])
    lost = [(rank, process.exitcode) for rank, process in enumerate(ranks) if process.exitcode != 0]
    if lost and stop.requested:  # before they could save
        raise KeyboardInterrupt
    if lost:
        rank, status = next((one for one in lost if one[1] != -signal.SIGKILL), lost[0])  # not one that was ended here
        raise RuntimeError(f"process {rank} of {size} ended with status {status}")
    return answers[0][1]


def _start(ranks: list[Any]) -> None:
    """Start the ranks deaf to Ctrl-C, which comes to all of them, until they train: it is passed on to them."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
    quiet = "TORCH_CPP_LOG_LEVEL" not in os.environ  # else DDP warns where every parameter takes part in the first step
    if quiet:
        os.environ["TORCH_CPP_LOG_LEVEL"] = "ERROR"
    try:
        for process in ranks:
            process.start()
    finally:
        if quiet:
            del os.environ["TORCH_CPP_LOG_LEVEL"]
        if main:
            signal.signal(signal.SIGINT, before)


def _rank(
    rank: int, place: dict[str, str], threads: int, told: Any, work: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    os.environ.update(place, RANK=str(rank), LOCAL_RANK=str(rank))
    torch.set_num_threads(threads)
    try:
        with join_world() as world:
            answer = work(world, *arguments)
        if world.is_main:
            told.put((rank, True, answer))
    except UserError as error:
        told.put((rank, False, str(error)))
        raise SystemExit(2) from None


def _end(ranks: list[Any]) -> None:
    """Let the ranks end by themselves for a while, and then end them: one that waits for a lost one waits forever."""
    for process in ranks:
        process.join(_PATIENCE / len(ranks))
    for process in ranks:
        if process.is_alive():
            process.kill()
            process.join()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
