"""Prime factors of the numbers under roots and in logarithms."""

from math import isqrt

MOST_ROOT_BITS = 256


def _primes_below(limit: int) -> list[int]:
    sieve = bytearray([1]) * limit
    for n in range(2, isqrt(limit) + 1):
        if sieve[n]:
            sieve[n * n :: n] = bytes(len(range(n * n, limit, n)))
    return [n for n in range(2, limit) if sieve[n]]


PRIMES = _primes_below(2_000)


def factor_integer(number: int) -> dict[int, int] | None:
    """Prime factors with counts; None where trial division by small primes does not settle it."""
    if number.bit_length() > MOST_ROOT_BITS:
        return None
    factors: dict[int, int] = {}
    for prime in PRIMES:
        if prime * prime > number:
            break
        while number % prime == 0:
            factors[prime] = factors.get(prime, 0) + 1
            number //= prime
    if number == 1:
        return factors
    if number < PRIMES[-1] ** 2:
        factors[number] = factors.get(number, 0) + 1
        return factors
    side = isqrt(number)
    if side * side == number and side < PRIMES[-1] ** 2:
        factors[side] = factors.get(side, 0) + 2
        return factors
    return None
