"""The rules as data: a timetable and a design for each rule of Yang et al. (2019)."""

from collections.abc import Sequence
from dataclasses import dataclass

from multitask.tasks.designs import (
    AT_ONCE,
    IN_TURN,
    CategoryMatch,
    ContextDecision,
    Decision,
    Design,
    Freedman,
    Go,
    OneInterval,
    SampleMatch,
)
from multitask.tasks.timing import At, Choice, Timetable, Uniform
from multitask.trials import Layout, unknown

STIMULUS = Choice((200, 400, 600))
DELAY = Choice((200, 400, 800, 1600))

# Duration of each period, or the time at which it ends: in random, test and psychometric mode.
FIXED_DURATION: Timetable = {
    "fix1": (Uniform(300, 700), At(500), 300),
    "stim1": (Uniform(500, 1500), At(1500), "stim_time"),
    "go1": (500, At(2000), 400),
}
REACTION: Timetable = {
    "fix1": (Uniform(500, 2500), At(2000), 1000),
    "go1": (500, At(2500), 400),
}
DELAYED: Timetable = {
    "fix1": (Choice((300, 500, 700)), At(500), At("stim_on")),
    "stim1": (STIMULUS, At(1000), At("stim_off")),
    "delay1": (DELAY, At(2000), "delay_time"),
    "go1": (500, At(2500), 400),
}
DECISION: Timetable = {
    "fix1": (Uniform(100, 400), At(500), 300),
    "stim1": (Choice((400, 800, 1600)), At(2000), "stim_time"),
    "go1": (500, At(2500), 400),
}
CONTEXT: Timetable = {
    "fix1": (Uniform(100, 400), At(500), 500),
    "stim1": (Choice((400, 800, 1600)), At(1500), "stim_time"),
    "go1": (500, At(2000), 500),
}
DELAYED_DECISION: Timetable = {
    "fix1": (STIMULUS, At(500), At("stim1_on")),
    "stim1": (STIMULUS, At(1000), At("stim1_off")),
    "delay1": (DELAY, At(2000), At("stim2_on")),
    "stim2": (STIMULUS, At(2500), At("stim2_off")),
    "delay2": (Uniform(100, 300), At(2700), 200),
    "go1": (500, At(3000), 300),
}
DELAYED_CONTEXT: Timetable = {
    "fix1": (STIMULUS, At(500), At(300)),
    "stim1": (STIMULUS, At(1000), At(600)),
    "delay1": (DELAY, At(2000), "delay_time"),
    "stim2": (STIMULUS, At(2500), 300),
    "delay2": (Uniform(100, 300), At(3000), 200),
    "go1": (500, At(3500), 300),
}
SAMPLE_MATCH: Timetable = {
    "fix1": (STIMULUS, 500, At(500)),
    "stim1": (STIMULUS, 500, At(800)),
    "delay1": (DELAY, 1200, At(2000)),
    "go1": (500, 500, At(2500)),
}
CATEGORY_MATCH: Timetable = SAMPLE_MATCH | {"go1": (STIMULUS, 500, At(2500))}
ONE_INTERVAL: Timetable = {
    "fix1": (Uniform(100, 600), 500, 500),
    "stim1": (1000, 1000, 1000),
    "go1": (500, 500, 500),
}
FREEDMAN: Timetable = {
    "fix1": (Uniform(100, 600), 500, At(500)),
    "stim1": (1000, 1000, At(1500)),
    "delay1": (1000, Uniform(800, 1200), At(2500)),
    "go1": (500, 500, At(3000)),
}


@dataclass(frozen=True)
class RuleData:
    """A rule.

    Attributes
    ----------
    title : str
        Name in figures.
    timetable : Timetable
        Durations of the periods in each mode.
    design : Design
        Conditions, stimuli and correct response.
    cue_stays : bool
        Whether the fixation cue stays on after the go event.
    """

    title: str
    timetable: Timetable
    design: Design
    cue_stays: bool = False


TASKS: dict[str, RuleData] = {
    "fdgo": RuleData("Go", FIXED_DURATION, Go("stim1", "go1")),
    "reactgo": RuleData("RT Go", REACTION, Go("go1", "go1"), cue_stays=True),
    "delaygo": RuleData("Dly Go", DELAYED, Go("stim1", "stim1")),
    "fdanti": RuleData("Anti", FIXED_DURATION, Go("stim1", "go1", anti=True)),
    "reactanti": RuleData("RT Anti", REACTION, Go("go1", "go1", anti=True), cue_stays=True),
    "delayanti": RuleData("Dly Anti", DELAYED, Go("stim1", "stim1", anti=True)),
    "dm1": RuleData("DM 1", DECISION, Decision(1, AT_ONCE, weakest=0.8, span=0.4)),
    "dm2": RuleData("DM 2", DECISION, Decision(2, AT_ONCE, weakest=0.8, span=0.4)),
    "contextdm1": RuleData("Ctx DM 1", CONTEXT, ContextDecision(1, AT_ONCE)),
    "contextdm2": RuleData("Ctx DM 2", CONTEXT, ContextDecision(2, AT_ONCE)),
    "multidm": RuleData("MultSen DM", CONTEXT, ContextDecision(None, AT_ONCE)),
    "delaydm1": RuleData("Dly DM 1", DELAYED_DECISION, Decision(1, IN_TURN, weakest=0.5, span=1.0)),
    "delaydm2": RuleData("Dly DM 2", DELAYED_DECISION, Decision(2, IN_TURN, weakest=0.5, span=1.0)),
    "contextdelaydm1": RuleData("Ctx Dly DM 1", DELAYED_CONTEXT, ContextDecision(1, IN_TURN)),
    "contextdelaydm2": RuleData("Ctx Dly DM 2", DELAYED_CONTEXT, ContextDecision(2, IN_TURN)),
    "multidelaydm": RuleData("MultSen Dly DM", DELAYED_CONTEXT, ContextDecision(None, IN_TURN)),
    "dmsgo": RuleData("DMS", SAMPLE_MATCH, SampleMatch(go_if_match=True), cue_stays=True),
    "dmsnogo": RuleData("DNMS", SAMPLE_MATCH, SampleMatch(go_if_match=False), cue_stays=True),
    "dmcgo": RuleData("DMC", CATEGORY_MATCH, CategoryMatch(go_if_match=True), cue_stays=True),
    "dmcnogo": RuleData("DNMC", CATEGORY_MATCH, CategoryMatch(go_if_match=False), cue_stays=True),
    # two rules with three rings, which are not among the twenty
    "oic": RuleData("1IC", ONE_INTERVAL, OneInterval(), cue_stays=True),
    "dmc": RuleData("DMC", FREEDMAN, Freedman(go_if_match=True), cue_stays=True),
}
THREE_RING_RULES = ("oic", "dmc")
RULES = tuple(rule for rule in TASKS if rule not in THREE_RING_RULES)
RULESETS = {"all": RULES, "mante": ("contextdm1", "contextdm2"), "oicdmc": THREE_RING_RULES}


def one_of_each_family(rules: Sequence[str]) -> list[str]:
    """The first rule of each family; rules of a family share their timetable.

    Parameters
    ----------
    rules : sequence of str
        Names of rules; "module:name" of a task is a family of its own.

    Returns
    -------
    list of str
        In the order of ``rules``.

    Raises
    ------
    MultitaskError
        If a rule is unknown.

    Examples
    --------
    >>> one_of_each_family(["delayanti", "dm1", "delaygo", "dm2"])
    ['delayanti', 'dm1']
    """
    first = {rule if ":" in rule else id(task_of(rule).timetable): rule for rule in reversed(rules)}
    return [rule for rule in rules if rule in first.values()]


def layout(rule: str) -> Layout:
    """Input channels that a rule needs.

    Parameters
    ----------
    rule : str

    Returns
    -------
    Layout
        Three rings and 2 rule units (99 channels) for "oic" and "dmc"; two rings and 20 rule units (85 channels) for
        all other names.
    """
    return Layout(THREE_RING_RULES, n_rings=3) if rule in THREE_RING_RULES else Layout(RULES)


def task_of(rule: str) -> RuleData:
    """The entry of `TASKS` for a rule; raises a `MultitaskError` if the rule is unknown."""
    if rule not in TASKS:
        raise unknown("rule", rule, TASKS)
    return TASKS[rule]
