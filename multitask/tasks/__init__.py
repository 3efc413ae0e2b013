"""The twenty tasks of Yang et al. (2019): what happens when, what is shown, and which response is correct.

`generate_trials` draws a batch of trials of one rule. The modules are

- `timing`: durations of periods and how they become time steps;
- `designs`: kinds of tasks, each of which draws its conditions and defines stimuli and correct response;
- `rules`: the rules as data, one row of `TASKS` for each rule: a timetable and a design;
- `generate`: the generation of batches from a rule.

There are three modes, as in the published code:

``random``        conditions are drawn for each trial, event times once for the batch: for training and evaluation
``test``          a fixed grid of conditions and times, for analyses; the four match rules show go trials only
``psychometric``  conditions given by the caller

Times are in ms. Each duration is truncated to whole time steps separately, int(t / dt). "Strength" is the factor that
scales a bump on a ring. "Coherence" is half of the difference of two strengths.

Where the paper and its code differ, the code is followed (see also `multitask.trials`):

- stimuli that do not match are at least 20 degrees apart;
- strengths on the test grids increase in steps of a fifth of their range and do not reach its end (0.80 to 1.12), so
  that stimulus 1 is the weaker one at three of five levels;
- the two rules with three rings show only category A in ``test`` mode.

There is one deviation from the code: all draws come from the generator of the caller. The published code uses the
global random state to split strengths over modalities in ``multidm``.

Source: Yang, Joglekar, Song, Newsome and Wang (2019), Nat Neurosci 22, 297-306, and its public code.
"""

from multitask.tasks.designs import ContextDecision, Decision, Design
from multitask.tasks.generate import generate_trials
from multitask.tasks.rules import (
    RULES,
    RULESETS,
    TASKS,
    THREE_RING_RULES,
    RuleData,
    layout,
    one_of_each_family,
    task_of,
)
from multitask.tasks.timing import Draws, schedule

__all__ = [
    "RULES",
    "RULESETS",
    "TASKS",
    "THREE_RING_RULES",
    "ContextDecision",
    "Decision",
    "Design",
    "Draws",
    "RuleData",
    "generate_trials",
    "layout",
    "one_of_each_family",
    "schedule",
    "task_of",
]
