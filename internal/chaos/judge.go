package chaos

// Violation is one promise broken once.
type Violation struct {
	// Rule is one of the Rule constants.
	Rule string `json:"rule"`
	// ID and Device are those of the command it was broken for; one or both are empty if there is none.
	ID     string `json:"id,omitempty"`
	Device string `json:"device,omitempty"`
	What   string `json:"what"`
	// Story is what happened to the command, or to the device, step by step. Only the first violations of a rule have one.
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

// stories is how many violations of one rule are told as a story. The others of it are alike.
const stories = 10

// A rule finds all that breaks one promise.
type rule struct {
	name    string
	promise string
	judge   func(*evidence) []finding
}

// A finding is a violation without its story.
type finding struct {
	id, device string
	what       string
	// with are other commands whose steps belong into the story.
	with []string
	// story tells it, where it isn't the story of commands.
	story func() []string
}

var rules = []rule{
	{RuleOneResult, "every confirmed command has exactly one terminal result, an undecided one at most one", oneResult},
	{RuleTrueResult, "what a result says of the device is so", trueResult},
	{RuleAddressed, "lines and results are those of a command to that device", addressed},
	{RuleOrder, "a device reads its commands in their order", inOrder},
	{RuleFenced, "nothing comes through a device's old connection after the first of a newer one", fenced},
	{RuleDuplicates, "a line is read once, unless the host was killed; at-most-once always", duplicates},
	{RulePresence, "presence as the events tell it becomes the truth", presenceTrue},
	{RuleExpiry, "nothing is written after its time", inTime},
	{RuleAnswers, "an answer is what the device said to that command", answersRight},
	{RuleGroups, "what is said of a group agrees with the results of its commands", groupsRight},
	{RuleLedger, "the ledger has no unfinished rows", ledgerEmpty},
	{RulePoison, "poison has all malformed messages and nothing else", poisonRight},
	{RuleBroker, "the broker gives up a command only when its expiration is over", brokerKeeps},
	{RuleStop, "a host that stops with exit code 0 has recorded and answered everything, one with code 3 says what is left", stopsTrue},
	{RuleSecondHost, "a second host on the same store does nothing, and names the first", secondHostIdle},
	{RuleLeak, "memory and goroutines come back to where they were", nothingLeaks},
}

// Judge returns everything in the history that breaks a promise, by rule. A history without violations is as it should be.
func Judge(h *History) []Violation {
	e := newEvidence(h)
	var violations []Violation
	for _, r := range rules {
		violations = append(violations, e.violations(r)...)
	}
	return violations
}

// violations returns all that breaks the rule, the first with their stories.
func (e *evidence) violations(r rule) []Violation {
	found := r.judge(e)
	violations := make([]Violation, len(found))
	for i, f := range found {
		violations[i] = Violation{Rule: r.name, ID: f.id, Device: f.device, What: f.what}
		if i < stories {
			violations[i].Story = e.tell(f)
		}
	}
	return violations
}
