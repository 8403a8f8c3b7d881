"""``python -m examples.payouts.bank``: a bank that is out of order now and then, over HTTP on the loopback.

``POST /payments`` with ``{"invoice", "cents"}`` pays and answers 201 with ``{"receipt"}``, unless chance has
it otherwise: see :class:`Mood`. Chance is a matter of the seed, the invoice, and how often it was asked for,
so that the same seed gives the same troubles. ``GET /payments`` gives the ledger once nothing is under way.

The process that is started keeps the port and starts the bank itself in another one, again whenever that
dies. What was paid is in a file, written down before the answer goes out. A program that starts a bank holds
its standard input (``--until-eof``), so that none is left behind.
"""

from __future__ import annotations

import argparse
import enum
import json
import os
import random
import select
import signal
import socket
import socketserver
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, cast

KEY_HEADER = "Idempotency-Key"
_DIED = 70
_STANDARD_INPUT = 0
# Longer than payers wait before they try again, so that they meet a port that refuses.
_CLOSED_SECONDS = 0.03


class Mood(enum.Enum):
    """What may become of a request to pay."""

    PAYS = "pays"
    PAYS_LATE = "pays late"
    FAILS_BEFORE = "fails before it pays"
    FAILS_AFTER = "pays and fails"
    DROPS_BEFORE = "hangs up before it pays"
    DROPS_AFTER = "pays and hangs up"
    DIES_BEFORE = "dies before it pays"
    DIES_AFTER = "pays and dies"


OF_A_HUNDRED = {
    Mood.PAYS: 44,
    Mood.PAYS_LATE: 12,
    Mood.FAILS_BEFORE: 8,
    Mood.FAILS_AFTER: 8,
    Mood.DROPS_BEFORE: 8,
    Mood.DROPS_AFTER: 8,
    Mood.DIES_BEFORE: 6,
    Mood.DIES_AFTER: 6,
}
"""How often each is met."""
_BEFORE = {Mood.FAILS_BEFORE, Mood.DROPS_BEFORE, Mood.DIES_BEFORE}
_FAILS = {Mood.FAILS_BEFORE, Mood.FAILS_AFTER}
_DIES = {Mood.DIES_BEFORE, Mood.DIES_AFTER}
_DROPS = {Mood.DROPS_BEFORE, Mood.DROPS_AFTER}


def chance(seed: int, invoice: str, number: int) -> random.Random:
    """What decides about the ``number``-th request for an invoice; ``1/a`` has the luck of ``a``."""
    return random.Random(f"{seed}:{invoice.rpartition('/')[2]}:{number}")


def mood(rng: random.Random) -> Mood:
    """A mood, by its frequency."""
    return rng.choices(list(OF_A_HUNDRED), list(OF_A_HUNDRED.values()))[0]


class Ledger:
    """What the bank was asked and what it has paid, in a file to which lines are added.

    With ``honours_keys`` a second payment under an idempotency key is the first one again.
    """

    def __init__(self, path: Path, *, honours_keys: bool) -> None:
        self._honours_keys = honours_keys
        self._lock = threading.Lock()
        self._asked: Counter[str] = Counter()
        self._payments: list[dict[str, Any]] = []
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        for line in path.read_text().splitlines():
            self._enter(json.loads(line))

    def ask(self, invoice: str) -> int:
        """Take note of a request; how many there were for this invoice."""
        with self._lock:
            self._write({"asked": invoice})
            return self._asked[invoice]

    def pay(self, invoice: str, cents: int, key: str | None) -> int:
        """Pay, durably; the receipt's number."""
        with self._lock:
            if self._honours_keys and key is not None:
                for payment in self._payments:
                    if payment["key"] == key:
                        return int(payment["receipt"])
            receipt = len(self._payments) + 1
            self._write({"receipt": receipt, "invoice": invoice, "cents": cents, "key": key})
            os.fsync(self._file)
            return receipt

    def to_json(self) -> dict[str, Any]:
        """Everything that was paid, and how often under each key, for each invoice, and asked for it."""
        with self._lock:
            return {
                "payments": list(self._payments),
                "by_key": Counter(payment["key"] for payment in self._payments),
                "by_invoice": Counter(payment["invoice"] for payment in self._payments),
                "asked": dict(self._asked),
            }

    def _write(self, entry: dict[str, Any]) -> None:
        os.write(self._file, json.dumps(entry).encode() + b"\n")
        self._enter(entry)

    def _enter(self, entry: dict[str, Any]) -> None:
        if "asked" in entry:
            self._asked[entry["asked"]] += 1
        else:
            self._payments.append(entry)


class Bank(socketserver.ThreadingTCPServer):
    """Listens from the moment it is made. One connection carries one request."""

    allow_reuse_address = True
    allow_reuse_port = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int, ledger: Ledger, seed: int, late_ms: int) -> None:
        self.ledger = ledger
        self.seed = seed
        self.late_ms = late_ms
        self._under_way = 0
        self._changed = threading.Condition()
        super().__init__(("127.0.0.1", port), _Desk)

    def process_request(self, request: Any, client_address: Any) -> None:
        # Counted in the order of arrival, so that whoever asks for the ledger next waits for this one.
        self._count(1)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._count(-1)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client that has gone away
            super().handle_error(request, client_address)

    def quiet(self) -> None:
        """Wait until nothing but the request that asks for this is under way."""
        self._count(-1)
        with self._changed:
            self._changed.wait_for(lambda: self._under_way == 0)
        self._count(1)

    def _count(self, difference: int) -> None:
        with self._changed:
            self._under_way += difference
            self._changed.notify_all()


class _Desk(BaseHTTPRequestHandler):
    timeout = 10

    def do_GET(self) -> None:
        bank = cast("Bank", self.server)
        bank.quiet()
        self._answer(200, bank.ledger.to_json())

    def do_POST(self) -> None:
        bank = cast("Bank", self.server)
        try:
            order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            invoice, cents = str(order["invoice"]), int(order["cents"])
        except (TypeError, KeyError, ValueError):
            self._answer(400, {"error": "not a payment"})
            return
        number = bank.ledger.ask(invoice)
        rng = chance(bank.seed, invoice, number)
        what = mood(rng)
        self._say(f"{invoice}, request {number}: {what.value}")
        if what is Mood.PAYS_LATE:
            # Real time, since payers measure it; the request has a thread of its own, and nobody else waits.
            time.sleep(rng.uniform(0, bank.late_ms / 1000))
        receipt = 0 if what in _BEFORE else bank.ledger.pay(invoice, cents, self.headers[KEY_HEADER])
        if what in _DIES:
            os._exit(_DIED)
        if what in _FAILS:
            self._answer(500, {"error": "out of order"})
        elif what not in _DROPS:
            self._answer(201, {"receipt": receipt})

    def _answer(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Keep the port, and a bank there, until told to stop."""
    parser = argparse.ArgumentParser(prog="bank", description="A bank with troubles, on the loopback.")
    parser.add_argument("--seed", type=int, default=1, help="the same seed, the same troubles")
    parser.add_argument("--port", type=int, default=0, help="any free one unless given")
    parser.add_argument("--keys", choices=["honoured", "ignored"], default="honoured")
    parser.add_argument("--ledger", type=Path, help="the file of what was paid; a new one unless given")
    parser.add_argument("--late-ms", type=int, default=3000, help="how late it is at most, when it is late")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input does")
    options = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    path = options.ledger or Path(tempfile.mkdtemp(prefix="bank-")) / "ledger.jsonl"
    # Bound and never listening: while the bank is dead its port refuses, and nobody else can have it.
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        kept.bind(("127.0.0.1", options.port))
        port = kept.getsockname()[1]
        is_first = True
        while True:
            ledger = Ledger(path, honours_keys=options.keys == "honoured")
            bank = Bank(port, ledger, options.seed, options.late_ms)
            if is_first:
                print(f"the bank is at http://127.0.0.1:{port}, its ledger is {path}", flush=True)
            is_first = False
            if _serve_in_child(bank, [_STANDARD_INPUT] if options.until_eof else []) != _DIED:
                return 1
            print("the bank has died, and is opened again", file=sys.stderr, flush=True)
            time.sleep(_CLOSED_SECONDS)  # nothing happens meanwhile: payers are to meet a port that refuses


def _serve_in_child(bank: Bank, held_by_others: list[int]) -> int:
    """Serve in a process of its own until it ends, at the latest with this one; its exit code.

    It ends too when one of the pipes in ``held_by_others`` does.
    """
    watched, held = os.pipe()
    child = os.fork()
    if child == 0:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        os.close(held)
        threading.Thread(target=bank.serve_forever, daemon=True).start()
        select.select([watched, *held_by_others], [], [])  # nothing ever comes but the end
        os._exit(0)
    os.close(watched)
    bank.server_close()
    try:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        os.close(held)


if __name__ == "__main__":
    sys.exit(main())
