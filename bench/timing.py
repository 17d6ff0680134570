"What every measurement shares: how a time is taken, and how a line is printed."

import time


def best(action, n: int = 3) -> float:
    "Shortest of n times, seconds."
    times = []
    for _ in range(n):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)


def report(name: str, measured: float, wanted: str, reached: bool) -> None:
    print(f"{name:64} {measured:8.2f}   wanted {wanted:12} {'reached' if reached else 'MISSED'}", flush=True)
