"""A hand-made table of answers: what must count as equal to the reference, and what must not."""

import pytest

from whetstone.verify import MathVerifier

EQUAL = r"""
42 == 42
+42 == 42
042 == 42
42. == 42
-7 == -7
− 7 == -7
- 7 == -7
1,234 == 1234
1{,}234 == 1234
1,\!234,\!567 == 1234567
1\,000 == 1000
1 000 000 == 1000000
12,345.50 == 12345.5
(1,234,5/2) == (1234,5/2)
5.0 == 5
.5 == 0.5
0.5 == 1/2
0.50 == \frac{1}{2}
\frac12 == 0.5
\frac1{2} == 1/2
\frac{1}2 == 1/2
\dfrac{3}{6} == \tfrac{1}{2}
-\frac{1}{2} == \frac{-1}{2}
\frac{1}{-2} == -0.5
-1/2 == \frac{1}{-2}
1\frac{1}{2} == \frac{3}{2}
-1\frac12 == -1.5
1 1/2 == 3/2
12\frac{3}{5} == 12.6
0.\overline{3} == \frac{1}{3}
0.1\overline{6} == 1/6
1e3 == 1000
1.5 \times 10^3 == 1500
{(1,2)} == (1,2)
\mathbf{(1,2)} == (1,2)
\color{red}{x>3} == (3,\infty)
\underline{x=3, y=4} == (3,4)
{1,234} == 1234
{-}8 == -8
\text{y = 2x + 1} == y=2x+1
(y,x)=(4,3) == (3,4)
3.5\,\Omega == 3.5
5\,\mu\text{m} == 5\times10^{-6}\text{ m}
5\,\mathrm{J/(kg\cdot K)} == 5
180^\circ == \pi\text{ radians}
\Rightarrow 57 == 57
57 \checkmark == 57
5 \quad \text{(as required)} == 5
\text{The answer is }45 == 45
x \neq 0, 1 == (-\infty,0)\cup(0,1)\cup(1,\infty)
x<-1\lor x>3 == (-\infty,-1)\cup(3,\infty)
[0,1[ == [0,1)
x>0 == \mathbb{R}^+
\mathbf{R} == \mathbb{R}
x\in\mathbb R == \mathbb{R}
12 dollars and 50 cents == \$12.50
\pounds 12 == 12
x\text{ is at least }3 == x\ge3
\mathbb{Z} == \text{all integers}
2\operatorname{cis}60^\circ == 1+i\sqrt3
\frac{\pi}{6} == 30^\circ
5 kΩ == 5000\,\Omega
4 sq. cm == 4\text{ cm}^2
7 == The answer is 7.
\"$12 $ and $13 $\" == 12\text{ and }13
n \choose 2 == \frac{n(n-1)}{2}
1{\,}024 == 1024
\text{Area}=12 == 12
\text{The area is }12 == \text{Area}=12
5_{10} == 5
half == 1/2
one-half == 1/2
a quarter == 1/4
two and a half == 5/2
three and three quarters == 15/4
twenty five == 25
a dozen == 12
one million two hundred thousand == 1200000
1.2 x 10^3 == 1200
Abs(x) == |x|
log2(8) == 3
{}^6C_2 == 15
9\quad\text{(by symmetry)} == 9
\text{DNE} == \text{does not exist}
x^2+C == x^2 + c
\mathbb{R}-\{3\} == x\ne3
\text{all real numbers greater than }3 == x>3
[1,2]\cup\{3\} == 1\le x\le2\text{ or }x=3
[[5,6],[7,8]] == \begin{pmatrix}5&6\\7&8\end{pmatrix}
\langle 1,2,3\rangle == \begin{pmatrix}1\\2\\3\end{pmatrix}
(1,2,3)^T == \begin{pmatrix}1\\2\\3\end{pmatrix}
\mathbf{i}+2\mathbf{j} == \langle 1,2\rangle
\begin{aligned}x&=1\\y&=2\end{aligned} == x=1, y=2
\frac{2,000}{4} == 500
12\text{,}500 == 12500
USD 12,500 == 12500
12,5\% == 12.5\%
5 Prozent == 5\%
\text{one hundred and five} == 105
\text{five and a half} == 5.5
8\text{ choose }3 == 56
413 \text{ in base } 5 == 413_5
f(x)=3x-2 == y=3x-2
binomial(5,2) == 10
Rational == \text{rational}
Binomial == \text{binomial}
3*Rational(1, 2) == 1.5
a:b=2:3 == 2:3
|3-4i| == 5
mg(a-b) == mga-mgb
A\subseteq B == B\supseteq A
2^{10} == 1024
2^-1 == 1/2
10^{-2} == 0.01
5! == 120
\binom{5}{2} == 10
3 million == 3000000
2.5\text{ million} == 2{,}500{,}000
\$18 == 18
$18$ == 18
\$1,080.00 == 1080
€5 == 5
18 dollars == 18
18\text{ dollars} == 18
5\text{ square units} == 5
5 == 5\text{ square units}
5\text{ square units} == 5\text{ units}^2
5\text{ units squared} == 5\text{ units}^2
5\text{ square units} == 5\text{ cm}^2
5\text{ units} == 5\text{ cm}
\pi\text{ units} == \pi
\frac{dy}{dx} == \frac{dy}{dx}
5 cm == 5
5cm == 5
5\text{ cm}^2 == 5
5\,\mathrm{m/s} == 5
60 miles per hour == 60
3 apples == 3
90^\circ == 90
90^{\circ} == 90
90° == 90
90 degrees == 90
50\% == 0.5
50\% == \frac12
12.5% == 1/8
50\% == 50\%
28 percent == 28\%
\sqrt{8} == 2\sqrt{2}
\sqrt2 == \sqrt{2}
\frac{1}{\sqrt{2}} == \frac{\sqrt{2}}{2}
\sqrt{2}\sqrt{3} == \sqrt{6}
\sqrt[3]{16} == 2\sqrt[3]{2}
\sqrt[3]{-8} == -2
4^{3/2} == 8
8^{1/3} == 2
\frac{1}{1+\sqrt{2}} == \sqrt{2}-1
\sqrt{-4} == 2i
(1+i)^2 == 2i
\frac{1}{i} == -i
2\pi == \pi \cdot 2
\frac94\pi == \frac{9\pi}{4}
e^{2} == e^2
x+1 == 1+x
(x+1)^2 == x^2+2x+1
(x-2)(x+2) == x^2-4
\frac{x}{7}+\frac{2}{7} == \frac{x+2}{7}
\frac{1}{x+1}+\frac{1}{x-1} == \frac{2x}{x^2-1}
2x == x \cdot 2
y = 2x+1 == 2x+1
x = 5 == 5
5 == x = 5
x=5 == x = 5.0
k = \frac{1}{2} == 0.5
f(2) = 5 == 5
x = \frac12 \approx 0.5 == 1/2
x \approx 11 == 11
\frac{10}{3} \approx 3.33 == \frac{10}{3}
50\pi \approx 157.08 == 50\pi
\sqrt2 \approx 1.414 == \sqrt2
A = 50\pi \approx 157 == 50\pi
50\pi\text{ cm} \approx 157\text{ cm} == 50\pi\text{ cm}
1234\pi \approx 3900 == 1234\pi
\frac13 \approx 33.3\% == \frac13
10\pi \approx 3.1 \times 10^1 == 10\pi
2+3=5 == 5
2x+4y=6 == x+2y=3
y=-\frac{1}{2}x+\frac{3}{4} == 2x+4y-3=0
x - 5 = 0 == 5 = x
(1, 2) == (1,2)
(0.5, \frac{4}{2}) == (\frac12, 2)
\left( 3, \frac{\pi}{2} \right) == (3,\frac{\pi}{2})
(x,y) = (1,2) == (1,2)
x=1, y=2 == (1,2)
\{1,2\} == \{2,1\}
\{1,2,2\} == \{1,2\}
1, 2 == 2, 1
1 and 2 == 1, 2
1 \text{ or } 2 == 2,1
x=1, x=2 == 1,2
x = 1 \text{ and } x = 2 == 2, 1
\pm 2 == -2, 2
1\pm\sqrt{19} == 1-\sqrt{19}, 1+\sqrt{19}
\frac{-1 \pm \sqrt{13}}{4} == \frac{-1-\sqrt{13}}{4}, \frac{-1+\sqrt{13}}{4}
[0,1) == \left[0, 1\right)
(-\infty, 5] == (-\infty,5]
x \le 5 == (-\infty,5]
1 < x \le 3 == (1, 3]
x \in (1,3] == (1,3]
x > 5 == 5 < x
2x > 10 == x > 5
(2,3) \cup (4,5) == (4,5)\cup(2,3)
\emptyset == \{\}
\begin{pmatrix}1&2\\3&4\end{pmatrix} == \begin{bmatrix} 1 & 2 \\ 3 & \frac{8}{2} \end{bmatrix}
11:21 == 11 : 21
204_5 == 204_5
204_5 == 204_{5}
204 == 204_5
\text{Monday} == Monday
monday == Monday
\text{(C)} == C
(C) == \text{C}
\text{odd} == odd
E == \mathrm{E}
|{-3}| == 3
\lfloor 3.7 \rfloor == 3
\boxed{7} == 7
**12** == 12
x² + 1 == x^2+1
2⁻¹⁰ == \frac{1}{1024}
5 cm² == 5
4{cm} == 4
Yes == yes
\sin(x) == \sin x
\sin(\pi/6) == \frac{1}{2}
\cos 60^\circ == 0.5
\log_{10} 1000 == 3
\sqrt{3+2\sqrt{2}} == 1+\sqrt{2}
\sec^2(y) == \tan^2(y)+1
\ln 4 == 2\ln 2
\sum_{k=1}^{4} k == 10
1000,99 == 1000.99
12,34 == 12.34
xy = 6 == 6
4:6 == 2:3
{(e)} == \text{(E)}
\left[\begin{array}{cc}1 & 2 \\3 & 4\end{array}\right] == \begin{pmatrix}1&2\\3&4\end{pmatrix}
-2 \le x \le 7 == x \in [-2,7]
x_1=3,\quadx_2=4 == 3, 4
(1,2),(3,4),(1,2) == (1,2),(3,4)
|x| < 3 == (-3,3)
1 \le |z| \le \frac{3}{2} == [-\frac32,-1]\cup[1,\frac32]
z \in [-\frac32,-1]\cup[1,\frac32] == 1 \le |z| \le \frac{3}{2}
0 == 1 = \zzz = x = 0
(0,1)\cap(2,3) == \emptyset
[0,1]\cap[1,2] == \{1\}
[1,1] == \{1\}
x_1=3, x_2=2 == 2,3
x_1=2, x_2=3 == 2,3
2,3 == x_1=3, x_2=2
5\text{ sec} == 5\text{ seconds}
5 sec == 5
5 m/sec == 5\text{ m/s}
2 sec x == 2\sec x
2\text{sec}(x) == 2\sec x
A == A. 3
(A) == (A) 3
\text{A} == A) 3
C(5,2) == 10
_5C_2 == 10
C_5^2 == 10
P(5,2) == 20
C(5,2) == (5,2)
7\bmod 4 == 3
\max\{1,2\} == 2
5!! == 15
+/- 2 == \pm 2
+-2 == \pm 2
{x|x>3} == (3,\infty)
{x ∈ ℝ : x > 3} == (3,\infty)
[0,1) U (2,3] == [0,1)\cup(2,3]
x\le 3 \wedge x\ge1 == [1,3]
x≧3 == x\ge3
x<>3 == x\ne3
x\not=3 == x\ne3
\mathbb R^+ == (0,\infty)
\mathbb R_{\ge0} == [0,\infty)
\text{no solution} == \emptyset
\{2n : n\in\mathbb Z\} == \{2k\mid k\in\mathbb Z\}
k\pi, k\in\mathbb Z == n\pi, n\in\mathbb Z
x=\frac{\pi}{4}+k\pi, k\in\mathbb Z == x=\frac{\pi}{4}+n\pi, n\in\mathbb Z
\begin{pmatrix}1&2\\[4pt]3&4\end{pmatrix} == \begin{pmatrix}1&2\\3&4\end{pmatrix}
30^\circ 30' == 30.5^\circ
5˚ == 5
5 years old == 5
\$1.2M == 1200000
12,34,567 == 1234567
12,34,567 == 34,12,567
1_000 == 1000
ϵ == \epsilon
5\tag{1} == 5
The answer is 5 == 5
not 5 but 6 == 6
5 (not 6) == 5
1,2 == \boxed{1} papers and \boxed{2} bins
1,-2 == Thus \(\boxed{1}\) and \(\boxed{-2}\).
{2,3} == $\boxed{2}, \boxed{3}$
"""

DIFFERENT = r"""
\begin{cases}x=2\\y=-1\end{cases} == y=2, y=-1
x=2, y=-1 == y=2, y=-1
\text{Area}=12 == \text{Perimeter}=12
the mean is 1/3 == the mode is 1/3
7\text{ish} == 7
7\text{ (approx.)} == 7
7\text{ negated} == 7
7\text{ reversed} == 7
7\text{ missing} == 7
7\text{ pi} == 7
30 == \frac{\pi}{6}
x^2<4 == -2<x<2
\boxed{7} out of 10 == 7
\boxed{7} minus 2 == 7
12 dollars and 50 cents == \$12.05
one two three == 6
two three == 5
3 \text{ or} == 3
a+b+C == a+b+c
\mathbf{C} == \mathbb{R}
43 == 42
-42 == 42
4.2 == 42
1,234 == 1,235
(100/3,100/17,100) == (100/17,100/3,100)
(5/2,100) == (5/2100)
(3,100/17) == (3100/17)
1234 == 1.234
0.333333 == 1/3
0.33 == \frac{1}{3}
\frac{10}{3} \approx 3.34 == \frac{10}{3}
50\pi \approx 157.07 == 50\pi
50\pi \approx 157.08 == 157.08
x = \frac12 \approx 0.7 == \frac12
3.33 \approx \frac{10}{3} == \frac{10}{3}
\frac{22}{7} \approx \pi == \pi
50\pi\text{ cm} \approx 157\text{ m} == 50\pi
0.3333333333333333333333333333333 == 1/3
3.14 == \pi
3.14159265358979 == \pi
1.41421356 == \sqrt{2}
0.693147 == \ln 2
50\% == 50
50 == 50\%
0.5\% == 0.5
2^{-99} == 2^{-98}
\frac{1}{2004!} == \frac{1}{2006!}
10^{-100} == 0
0 == 10^{-30}
2^{-99} == 0
10^{100} == 10^{100}+1
\sin(10^{-20}) == 0
e^{-50} == 0
(1,2) == \{1,2\}
\{1,2\} == (1,2)
(1,2) == (2,1)
(1,2) == [1,2]
(1,2] == [1,2)
[0,1) == [0,9)
\{1,2\} == \{1,3\}
\{1,2\} == \{1,2,3\}
1, 2 == 1, 2, 3
1 == 1, 2
1,2 == 1
\pm 2 == 2
2 == \pm 2
x=2,y=1 == (1,2)
x=5 == 6
x=5 == y=5
12.34 == 12,34
x^2 = 4 == 4
3x+4y+14=0 == 3x-y+13=0
x+2y=3 == x+2y=4
2x+4y-3=0 == 0
7 = 11a+c == 11a+c
x > 5 == x < 5
x \geq 5 == x > 5
x > 5 == y > 5
x \le 5 == x \ge 5
x \ne 3 == x = 3
x == y
48{/h}52{/h} == 48
7{cowsand}11{chickens.} == 7
f(2) < f(1) == f(1) < f(2)
x+1 == x+2
f(x) == f(y)
2x == x^2
5x == 5
5i == 5
5e == 5
\sqrt{2} == \sqrt{3}
\sqrt{2}+\sqrt{3} == \sqrt{5}
\sqrt{x^2} == x
2\sqrt{3} == 3\sqrt{2}
\frac{1}{2} == \frac{1}{3}
\frac{2}{3} == \frac{3}{2}
1\frac{1}{2} == \frac{1}{2}
5! == 5
5 million == 5
5 thousand == 5000000
5 dozen == 5
not 5 == 5
5 or 6 == 5
5 squared == 5
11:21 == 21:11
1112112_3 == 1112112_4
\text{Monday} == \text{Tuesday}
odd == even
E == D
C == 3
|a+b| == |a|+|b|
|a|-|b| == |a-b|
|a-b|+|b-c| == |a-c|
\sqrt{x^2y^2} == xy
3=3 == \log_2 8=3
x+1=x == x+2=x
3+4=7 == 2+5=7
\{1,\{2\}\} == \{1,2\}
(y,x)=(3,4) == (3,4)
[x] == \{x\}
A\text{ and }B == A\text{ or }B
\vec a\times\vec b == \vec b\times\vec a
0,500 == 500
5 Dutzend == 5
5 mil == 5
5十 == 5
5 por ciento == 5
5 Drittel == 5
5\text{ ppm} == 5
5\text{ basis points} == 5
9\text{ in base }12 == 9
20^\circ\text{F} == 20^\circ\text{C}
]0,1[ == [0,1]
f(t)=t+22 == g(x)=x+22
No, it converges. == \text{Yes}
\begin{pmatrix}1&2\\3&5\end{pmatrix} == \begin{pmatrix}1&2\\3&4\end{pmatrix}
\begin{pmatrix}1&2\end{pmatrix} == \begin{pmatrix}1\\2\end{pmatrix}
\text{the answer} == 5
the value five == 5
AZYUK2A == 2
0.1+0.2 == 0.30000000000000004
1/0 == 1
\infty == 5
-\infty == \infty
\sin(x) == \cos(x)
\sin(x) == x
\sum_{k=1}^{4} k == 11
\ln 4 == 3\ln 2
1,234 == 1.234
2,5 == 2.5
e == \text{D}
1,1,2 == 1,2
|x| < 3 == (-3,3]
|x| < 3 == |y| < 3
|x| > 3 == x > 3
|x| < 3 == x < 3
y \in (1,3) == 1 < x < 3
x \in (1,3] == 1 < x < 3
\frac{d}{dt} x == \frac{x}{t}
\frac{dy}{dx} == \frac{y}{x}
\frac{d^2y}{dx^2} == \frac{dy}{x^2}
\frac{d^{2}y}{dx^{2}} == \frac{dy}{x^2}
\frac{\mathrm{d}y}{\mathrm{d}x} == \frac{y}{x}
\frac{\partial f}{\partial x} == \frac{f}{x}
dy/dx == yx
5\text{ square units} == 5\text{ cubic units}
5\text{ units}^2 == 5\text{ units}
5\text{ units} == 5\text{ square units}
5 \text{units}^3 == 5 \text{units}^2
5\text{ units squared} == 5\text{ units cubed}
5\text{ units} == 5\text{ cm}^2
3 == x=1, y=2, z=3
x_1=3, x_2=3 == 2,3
x=3, y=2 == 2,3
x_1=3, x_2=2 == (2,3)
x_1=3, y_1=2 == 2,3
[1,2] == \{1\}
[1,1) == \{1\}
\{1,2\} == 1\le x\le2
5\text{ sec} == 5\text{ min}
5\sec x == 5
B == A. 3
A or B == A. 3
C(5,2) == (2,5)
C(5,2) == C(5,3)
7\bmod 4 == 7
7\pmod 4 == 3
5!! == 120
3+-2 == 3\pm 2
{a|b} == (b,\infty)
[0,1) U (2,3] == [0,1)\cap(2,3]
\text{no solution} == 0
k\pi, k\in\mathbb Z == 2n\pi, n\in\mathbb Z
x=k\pi, k\in\mathbb Z == y=n\pi, n\in\mathbb Z
k\pi, k\in\mathbb Z == n\pi, n\in\mathbb N
kn\pi, k\in\mathbb Z == n^2\pi, n\in\mathbb Z
\{kn\mid k\in\mathbb Z\} == \{k^2\mid k\in\mathbb Z\}
30^\circ 30' == 30.3^\circ
\$1.2M == 1.2
12,34,567 == 12,34,568
1_000 == 1
5 (not correct) == 5
not 5 but 6 == 5
The answer is 5 or 6 == 5
not 5 but 6 or 7 == 6
2 == \boxed{1} papers and \boxed{2} bins
"""


def rows(table: str) -> list[tuple[str, str]]:
    return [tuple(line.split(" == ", 1)) for line in table.strip().splitlines()]


@pytest.fixture(scope="module")
def verifier():
    with MathVerifier(deadline=20) as shared:
        yield shared


@pytest.mark.parametrize(("answer", "gold"), rows(EQUAL))
def test_equal_answers_are_accepted_boxed_and_bare(verifier, answer, gold):
    boxed = verifier.check(rf"<think>maybe 3</think> So it is $\boxed{{{answer}}}$.", gold)
    assert boxed.correct is True, boxed
    bare = verifier.check(answer, gold)
    assert bare.correct is True, bare


@pytest.mark.parametrize(("answer", "gold"), rows(DIFFERENT))
def test_different_answers_are_refused(verifier, answer, gold):
    verdict = verifier.check(rf"\boxed{{{answer}}}", gold)
    assert verdict.correct is False, verdict


def test_the_table_is_large_enough():
    assert len(rows(EQUAL)) + len(rows(DIFFERENT)) >= 200
