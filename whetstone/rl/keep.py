"""Which groups are trained on."""

from collections.abc import Callable, Sequence

from whetstone.rl.algorithm import Group, State


def each(rule: Callable[[Group], bool]) -> Callable[[State, int, Sequence[Group]], list[Group]]:
    """The groups that satisfy a rule, unchanged."""
    return lambda state, step, groups: [group for group in groups if rule(group)]


def rewards_differ(group: Group) -> bool:
    """Rollouts of equal reward have advantage 0 relative to each other: there is nothing to train on."""
    return len({r.reward for r in group.rollouts}) > 1


def partly_right(group: Group) -> bool:
    """DAPO's condition (eq. 8): some rollouts are right, not all."""
    return 0 < group.accuracy < 1


def there_are_any(group: Group) -> bool:
    return bool(group.rollouts)
