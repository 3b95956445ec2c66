"""Words after a number: what they multiply it by, in which unit it is measured, or which things it counts.

measure("km/h")      Unit(Fraction(5, 18), {"m": 1, "s": -1})
measure("apples")    Unit(1, {"apple": 1}): things that are counted are units of their own
"""

import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from functools import cache
from typing import NamedTuple


class Unit(NamedTuple):
    """`factor` times a product of base units with their powers; `offset` units such as °C are bases of their own."""

    factor: Fraction
    powers: Mapping[str, int]

    def times(self, other: "Unit", power: int = 1) -> "Unit":
        powers = dict(self.powers)
        for name, count in other.powers.items():
            powers[name] = powers.get(name, 0) + power * count
        return Unit(self.factor * other.factor**power, {name: count for name, count in powers.items() if count})


NO_UNIT = Unit(Fraction(1), {})

BASES_TEXT = """
m 1 m | meter meters metre metres
g 1 g | gram grams gramme grammes
s 1 s | second seconds sec secs
min 60 s | minute minutes mins
h 3600 s | hour hours hr hrs
day 86400 s | days d
week 604800 s | weeks wk wks
month 1 month | months
year 12 month | years yr yrs
in 0.0254 m | inch inches
ft 0.3048 m | foot feet
yd 0.9144 m | yard yards yds
mi 1609.344 m | mile miles
oz 28.349523125 g | ounce ounces
lb 453.59237 g | pound pounds lbs
t 1000000 g | tonne tonnes ton tons
acre 4046.8564224 m^2 | acres
ha 10000 m^2 | hectare hectares
L 0.001 m^3 | l liter liters litre litres
cc 0.000001 m^3 |
cup 0.0002365882365 m^3 | cups
pint 0.000473176473 m^3 | pints pt
quart 0.000946352946 m^3 | quarts qt
gallon 0.003785411784 m^3 | gallons gal
tablespoon 0.00001478676478125 m^3 | tablespoons tbsp
teaspoon 0.00000492892159375 m^3 | teaspoons tsp
N 1000 g m s^-2 | newton newtons
J 1000 g m^2 s^-2 | joule joules
W 1000 g m^2 s^-3 | watt watts
Pa 1000 g m^-1 s^-2 | pascal pascals
eV 1 eV |
erg 0.0001 g m^2 s^-2 | ergs
cal 1 cal | calorie calories
Å 0.0000000001 m | angstrom angstroms ångström
Wh 3600000 g m^2 s^-2 |
F 1 F | farad farads
H 1 H | henry henries
T 1 T | tesla
V 1 V | volt volts
A 1 A | amp amps ampere amperes
C 1 C | coulomb coulombs
ohm 1 ohm | ohms
Hz 1 s^-1 | hertz
rpm 1 rpm |
VA 1 VA |
mol 1 mol | mole moles
M 1 M |
K 1 K | kelvin kelvins
deg 1 deg | degree degrees °
°C 1 °C | celsius centigrade
°F 1 °F | fahrenheit
rad 1 rad | radian radians
dollar 100 cent | dollars buck bucks USD usd
cent 1 cent | cents ¢
dime 10 cent | dimes
euro 1 euro | euros EUR eur
pound-sterling 1 pound-sterling | GBP gbp
yen 1 yen | JPY 元 円 yuan rmb
rupee 1 rupee | rupees Rs INR
mph 0.44704 m s^-1 |
kph 1/3.6 m s^-1 | kmh
bit 1 bit | bits
byte 8 bit | bytes B
"""
PREFIXES = {
    "T": 12, "G": 9, "M": 6, "k": 3, "d": -1, "c": -2, "m": -3, "μ": -6, "µ": -6, "n": -9, "p": -12,
    "tera": 12, "giga": 9, "mega": 6, "kilo": 3, "deci": -1, "centi": -2, "milli": -3, "micro": -6, "nano": -9,
}  # fmt: skip
PREFIXED_TEXT = """
m g s L l N J W Wh F VA Pa eV cal V A Hz mol ohm bit byte B
meter meters metre metres gram grams second seconds liter liters litre litres joule joules watt watts newton newtons
pascal pascals volt volts calorie calories hertz bytes bits
"""
TEN_POWERS_TEXT = """
ten 1 tens | hundred 2 hundreds | thousand 3 thousands k | million 6 millions mn | billion 9 billions bn |
trillion 12 trillions | quadrillion 15 quadrillions | quintillion 18 quintillions | lakh 5 lakhs | crore 7 crores |
十 1 拾 십 десятков десятка | 百 2 백 | 千 3 천 | 万 4 萬 myriad myriads | 亿 8 億 | 兆 12 | 만 4 | 억 8 | googol 100 googols |
hundert 2 сотен сотни | mil 3 mila duizend tusen tysięcy |
 тысяч 3 тысячи тысяча | миллион 6 миллиона миллионов |
миллиард 9 миллиарда миллиардов | tausend 3 | millionen 6 millionene miljoen milioni milhões |
milliarde 9 milliarden | mille 3 | millones 6 millón
"""
ORDINALS_TEXT = """
third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth sixteenth
seventeenth eighteenth nineteenth twentieth
"""
CARDINALS_TEXT = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
eighteen nineteen twenty
"""
CARDINALS = {name: number for number, name in enumerate(CARDINALS_TEXT.split())} | {
    name: 10 * number
    for number, name in enumerate(["thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], 3)
}
CHANGING_TEXT = """
not no never neither nor or and but except unless if when whenever where whether either with without for from by to at
is isn are aren was were be being become becomes equal equals wrong false incorrect impossible invalid right-angled
more less fewer greater smaller larger least most than above below under over beyond between within up down about
approximately roughly nearly almost around plus minus times divided multiplied mod modulo remainder out choose root
roots log ln sin cos tan exp sqrt base power raised th rd nd st negative positive opposite inverse reciprocal loss
losses deficit debt owed short ago before after until since maybe perhaps otherwise twice thrice it that this which
only these those there undefined infinity infinite repeating recurring rounded decimal decimals fraction odd even prime
composite yes true none all dne rational irrational real imaginary increasing decreasing increases decreases of per in on as
percent percentage pct factorial factorials
"""
CHANGING = frozenset(CHANGING_TEXT.split())  # these words in front make another statement of the number before them
NO_THINGS_TEXT = """
ish approx circa ca est estimate estimated guess guessed guessing unsure uncertain unclear unknown possibly probably likely
unlikely hopefully supposedly allegedly presumably apparently assumed hypothetical rejected discarded excluded removed missing
extraneous spurious bogus reversed negated inverted flipped mirrored quartered quadrupled quintupled conjugate conjugated
transposed complement quotient bps thou grand binary octal hexadecimal hex excluding including exclusive inclusive then else
however though although periodic truncated repeated floor ceiling subfactorial exponent off pi
"""
NO_THINGS = CHANGING | frozenset(NO_THINGS_TEXT.split())  # what no unit and nothing counted is called
INSIDE_TEXT = "of per a an the in on each every old long wide high tall"
INSIDE = frozenset(INSIDE_TEXT.split())  # may follow a noun
SILENT_TEXT = "unit units exact exactly total altogether answer ans"
SILENT = frozenset(SILENT_TEXT.split())
GENERIC = "unit"  # of a length that has no name: 5 square units


@cache
def table() -> dict[str, Unit]:
    """Every spelling of every unit that is known."""
    found: dict[str, Unit] = {}
    for line in BASES_TEXT.strip().splitlines():
        head, names = line.split("|")
        name, factor, *powers = head.split()
        size = Fraction(1) / Fraction(factor[2:]) if factor.startswith("1/") else Fraction(factor)
        parts = (part.partition("^") for part in powers)
        unit = Unit(size, {base: int(power or 1) for base, _, power in parts})
        found.update(dict.fromkeys([name, *names.split()], unit))
    for name in PREFIXED_TEXT.split():
        for prefix, ten in PREFIXES.items():
            if (len(prefix) > 1) == (len(name) > 3) and (prefix + name) not in found:
                found[prefix + name] = Unit(found[name].factor * Fraction(10) ** ten, found[name].powers)
    return found


DOZENS_TEXT = """
dozen dozens dutzend docena docenas douzaine douzaines dozzina dozzine duzzine dúzia dúzias dozijn tucet дюжина дюжины
дюжин 打 ダース 다스
"""
PERCENT_TEXT = """
percent percentage pct prozent procent procenten процент процента процентов パーセント 퍼센트 per-cent por-ciento por-cento
pour-cent per-cento percentage-points percent-points
"""
PERCENT = frozenset(word.replace("-", " ") for word in PERCENT_TEXT.split())
PARTS_TEXT = """
half 2 halves halved hälfte hälften mitad mitades moitié moitiés metà metade половина половины |
3 drittel tercio tercios terzi terço terços треть трети | quarter 4 quarters viertel cuarto cuartos четверть четверти |
5 fünftel quinto quintos cinquièmes | 6 sechstel | 7 siebtel | 8 achtel | 9 neuntel | 10 zehntel | 1000 permille promille |
1000000 ppm | 1000000000 ppb
"""


@cache
def multipliers() -> dict[str, Fraction]:
    """Words that multiply the number before them: dozen, million, sevenths."""
    found = {"score": 20, "scores": 20, "gross": 144, "doubled": 2, "tripled": 3}
    values = {name: Fraction(number) for name, number in found.items()}
    for line in TEN_POWERS_TEXT.replace("\n", " ").split("|"):
        name, power, *others = line.split()
        values.update(dict.fromkeys([name, *others], Fraction(10) ** int(power)))
    values.update(dict.fromkeys(DOZENS_TEXT.split(), Fraction(12)))
    for line in PARTS_TEXT.replace("\n", " ").split("|"):
        values.update(
            dict.fromkeys(
                [name for name in line.split() if not name.isdecimal()], 1 / Fraction(re.search(r"\d+", line).group())
            )
        )
    ordinals = list(enumerate(ORDINALS_TEXT.split(), 3))
    ordinals += [(10 * n, f"{tens[:-1]}ieth") for tens, n in zip(list(CARDINALS)[-7:], range(3, 10), strict=True)]
    ordinals += [(10**n, f"{name}th") for name, n in (("hundred", 2), ("thousand", 3), ("million", 6), ("billion", 9))]
    values.update({name + s: Fraction(1, number) for number, name in ordinals for s in ("", "s")})
    return values


def known(name: str) -> Unit | None:
    return table().get(name) or (table().get(name.casefold()) if len(name) > 2 else None)


def measure(words: Iterable[str]) -> Unit | None:
    """The unit that words name; None if they say something else of the number before them.

    Words may carry a power, `m^2`; "per" and "/" divide; unknown nouns are things that are counted.
    """
    unit, sign, power, nouns, generic = NO_UNIT, 1, 1, [], 0
    for word in words:
        name, _, exponent = word.partition("^")
        lower = name.casefold()
        if lower in ("/", "per") or (lower in ("a", "an", "each", "every") and unit.powers):
            sign = -1
        elif lower in ("square", "squared", "sq", "cubic", "cubed", "cu"):
            power = 2 if lower.startswith("sq") else 3
            if lower.endswith("ed") and unit.powers and not nouns:  # feet squared
                unit, power = Unit(unit.factor**power, {k: v * power for k, v in unit.powers.items()}), 1
            elif lower.endswith("ed") and generic:  # units squared
                generic, power = generic * power, 1
        elif lower in SILENT:
            if lower in ("unit", "units"):
                generic, power = generic + power * int(exponent or 1), 1
            nouns = nouns or [""]
        elif unit.powers.keys() == {"deg"} and (scale := {"c": "°C", "f": "°F"}.get(lower[:1])):
            unit = table()[scale]
        elif (base := known(name)) is not None:
            unit = unit.times(base, sign * power * int(exponent or 1))
            sign, power = (sign if "/" in word else 1), 1
        elif (nouns or unit.powers) and lower in INSIDE:
            sign = 1
        elif (
            lower in NO_THINGS
            or lower in multipliers()
            or not name[:1].isalpha()
            or (len(name) == 1 and name.isascii())
        ):
            return None
        else:
            nouns.append(stem(lower))
            sign = 1
    if power != 1 and not nouns and not unit.powers:
        return None
    counted = [noun for noun in nouns if noun]
    if generic and not counted and not unit.powers:
        return Unit(Fraction(1), {GENERIC: generic})
    return unit.times(Unit(Fraction(1), {" ".join(counted): 1})) if counted else unit


def stem(word: str) -> str:
    """A noun without its plural ending."""
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word


def ratio(gold: Unit | None, given: Unit | None) -> Fraction | None:
    """What the given number is to be multiplied by before it is compared with the reference's; None: another unit."""
    if not gold or not given or not gold.powers or not given.powers:
        return Fraction(1)
    if gold.powers == given.powers:
        return given.factor / gold.factor
    if (
        GENERIC in gold.powers or GENERIC in given.powers
    ):  # square units may be cm^2; 5 units may be 5 of anything but that
        unnamed, other = (gold, given) if GENERIC in gold.powers else (given, gold)
        (power,) = other.powers.values() if other.powers.keys() in ({"m"}, {GENERIC}) else (1,)
        return Fraction(1) if unnamed.powers[GENERIC] == power else None
    if {*gold.powers} | {*given.powers} <= {"deg", "°C", "°F", "K"} and "deg" in {*gold.powers, *given.powers}:
        return Fraction(1)
    wanted, found = ({word for name in unit.powers for word in name.split()} for unit in (gold, given))
    counted = not any(known(word) for word in wanted | found)
    return Fraction(1) if counted and (wanted <= found or found <= wanted) else None
