package chaos

// This file has the rules and the judge, which works in three steps:
//
// 1. newEvidence reads a History once. It sorts the facts by command, device, session, group and
//     fault, so that a rule finds them without searching.
// 2. Each rule checks one promise. A rule is a function from the evidence to findings. It doesn't
//     change the evidence and doesn't know the other rules.
// 3. applyRule makes a Violation of each finding. The first violations of a rule get a story. It
//     says step by step what happened to the command.
//
// A rule must never blame a host that keeps its promises. So the rules allow for what the judge
// can't know:
//
//   - A command whose confirm didn't arrive is undecided. It may be in the queue or not, and it
//     may have a result or not.
//   - A command that was published again has no known place in its queue.
//   - Times are those at which something was recorded. A line may be recorded up to maxReadDelay
//     after the host wrote it. The effects of a fault may last for recoveryTime after its end.
//   - If a session broke or the host was killed, the result sent doesn't prove that the device
//     read the command. In the mode at-least-once, commands that were in flight may be written
//     twice.
//   - A frozen process delays what was on its way, so the host isn't blamed for late lines then.
//
// Three kinds of tests check the judge. A mutation breaks a good history in one place, and exactly
// one rule must find that. A planted mistake runs a real host with a fault in its code. And no
// rule may find anything in random histories of a good host.

// Violation is one promise that was broken once.
type Violation struct {
	// Rule is one of the Rule constants.
	Rule string `json:"rule"`
	// ID and Device name the command. One or both are empty if the violation isn't about a
	// command.
	ID     string `json:"id,omitempty"`
	Device string `json:"device,omitempty"`
	What   string `json:"what"`
	// Story says step by step what happened to the command or the device. Only the first
	// violations of a rule have one.
	Story []string `json:"story,omitempty"`
}

// The rules, in the order in which they are judged.
const (
	RuleOneResult  = "one-result"
	RuleTrueResult = "true-result"
	RuleAddressed  = "addressed"
	RuleOrder      = "order"
	RuleFenced     = "fenced"
	RuleDuplicates = "duplicates"
	RulePresence   = "presence"
	RuleExpiry     = "expiry"
	RuleAnswers    = "answers"
	RuleGroups     = "groups"
	RuleLedger     = "ledger"
	RulePoison     = "poison"
	RuleLeak       = "leak"
	RuleBroker     = "broker"
	RuleStop       = "stop"
	RuleSecondHost = "second-host"
)

// stories is how many violations of one rule get a story. The others are similar.
const stories = 10

// rule checks one promise. judge returns everything that breaks it.
type rule struct {
	name    string
	promise string
	judge   func(*evidence) []finding
}

// finding is a violation without its story.
type finding struct {
	id, device string
	what       string
	// with are other commands whose steps belong to the story.
	with []string
	// story returns the story, if it isn't the story of commands.
	story func() []string
}

var rules = []rule{
	{RuleOneResult, "every confirmed command has exactly one terminal result, an undecided one at most one", judgeOneResult},
	{RuleTrueResult, "what a result says about the device is true", judgeTrueResult},
	{RuleAddressed, "each line and result belongs to a command for that device", judgeAddressed},
	{RuleOrder, "a device reads its commands in order", judgeOrder},
	{RuleFenced, "nothing is read on an old connection after the first line on a newer one", judgeFenced},
	{RuleDuplicates, "a line is read once, unless the host was killed; at-most-once always", judgeDuplicates},
	{RulePresence, "presence according to the events agrees with the connections", judgePresence},
	{RuleExpiry, "no command is written after its time", judgeExpiry},
	{RuleAnswers, "an answer in a result is the device's answer to that command", judgeAnswers},
	{RuleGroups, "reports about a group agree with the results of its commands", judgeGroups},
	{RuleLedger, "the ledger has no unfinished rows", judgeLedger},
	{RulePoison, "poison has all malformed messages and no others", judgePoison},
	{RuleBroker, "the broker gives up a command only when its expiration is over", judgeBroker},
	{RuleStop, "a stop with exit code 0 has recorded and answered everything, one with code 3 names what is left", judgeStops},
	{RuleSecondHost, "a second host on the same store does nothing, and names the first", judgeSecondHosts},
	{RuleLeak, "memory and goroutines return to their level before the load", judgeLeaks},
}

// Judge returns everything in the history that breaks a promise, ordered by rule. It returns
// nothing if every promise was kept.
func Judge(h *History) []Violation {
	e := newEvidence(h)
	var violations []Violation
	for _, r := range rules {
		violations = append(violations, e.applyRule(r)...)
	}
	return violations
}

// applyRule returns all violations of the rule, the first ones with their stories.
func (e *evidence) applyRule(r rule) []Violation {
	found := r.judge(e)
	violations := make([]Violation, len(found))
	for i, f := range found {
		violations[i] = Violation{Rule: r.name, ID: f.id, Device: f.device, What: f.what}
		if i < stories {
			violations[i].Story = e.storyOf(f)
		}
	}
	return violations
}
