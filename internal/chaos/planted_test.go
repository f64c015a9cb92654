package chaos

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pentrough/pentrough/internal/testenv"
)

// edit replaces a text in a source file. The text must occur exactly once.
type edit struct {
	file, from, to string
}

// planted is a mistake in the host, such as an engineer could make, and the rule that must find
// it.
type planted struct {
	name  string
	edits []edit
	want  string
	// faults are what the mistake needs to do harm.
	faults []fault
	rate   int // 400 if it is 0
	load   load
	host   hostPlan
	// disk is the size of the ledger's own disk; empty is a shared disk.
	disk string
}

// noFault lets commands arrive for a while.
var noFault = fault{"none", func(ctx context.Context, _ *world, _ *Fault) { pause(ctx, 3*time.Second) }}

// manyDontRead stops the reading of some devices. Commands are then written in part before the
// host even notices.
var manyDontRead = fault{"many devices don't read", func(ctx context.Context, w *world, f *Fault) { w.stopReading(ctx, f, 20) }}

// answerAbandoned is the router's code that answers messages that aren't redelivered.
const answerAbandoned = "\tif in.abandoned != nil {\n\t\tin.work.Go(in.resumeAbandoned)\n\t}\n"

// mistakes are all mistakes that the judge has to find. The first entry is a host without a
// mistake.
var mistakes = []planted{
	{
		// With all that the others need, a host without a mistake keeps every promise.
		name: "none", load: load{atMostOnce: 50, sets: 20, held: 33, ttl: 10, expiring: 20, groups: 3, long: 5, requests: 10, late: 20, never: 5},
		faults: []fault{ledgerKill, blockedKill, hostStopped, secondConnections, unroutable, heldKill, manyDontRead, expiredKill, outage, ledgerRemoved, secondHost},
		disk:   "48m", host: hostPlan{deliveryLimit: usualLimit},
	},
	{
		name: "ack before write", want: RuleOneResult, faults: []fault{ledgerKill},
		edits: []edit{{"router/start.go", "\t\tin.active[e] = struct{}{}\n", "\t\tin.active[e] = struct{}{}\n\t\te.delivery.Settle(&e.run.outcome)\n"}},
	},
	{
		name: "ack before the result's confirm", want: RuleOneResult, faults: []fault{blockedKill},
		edits: []edit{{"router/publisher.go", "if err := p.sendOutputs(r, ref, msgs[:n]); err != nil {\n\t\t\t\treturn err\n\t\t\t}", "go p.sendOutputs(r, ref, msgs[:n])"}},
	},
	{
		name: "stock Deduplicator", want: RuleOneResult,
		edits: []edit{
			{
				"router/middleware/dedup/dedup.go", "\t\"github.com/ThreeDotsLabs/watermill/message\"\n",
				"\t\"github.com/ThreeDotsLabs/watermill/message\"\n\tstock \"github.com/ThreeDotsLabs/watermill/message/router/middleware\"\n",
			},
			{"router/middleware/dedup/dedup.go", "return func(msg *message.Message)", "return (&stock.Deduplicator{}).Middleware(next)\n\treturn func(msg *message.Message)"},
		},
	},
	{
		name: "stock marshaler", want: RuleOneResult,
		edits: []edit{
			{
				"transports/amqp/generation.go", "\tamqp \"github.com/rabbitmq/amqp091-go\"\n",
				"\tstock \"github.com/ThreeDotsLabs/watermill-amqp/v2/pkg/amqp\"\n\tamqp \"github.com/rabbitmq/amqp091-go\"\n",
			},
			{
				"transports/amqp/generation.go", "s.take(g.newDelivery(&d))",
				"msg, err := stock.DefaultMarshaler{}.Unmarshal(d)\n\t\t\tif err != nil {\n\t\t\t\tg.arrivals.settleDelivery()\n\t\t\t\t_ = d.Nack(false, true)\n\t\t\t\tcontinue\n\t\t\t}\n" +
					"\t\t\tout := g.newDelivery(&d)\n\t\t\tout.UUID, out.Payload, out.Metadata = msg.UUID, msg.Payload, msg.Metadata\n\t\t\ts.take(out)",
			},
		},
	},
	{
		name: "nack at shutdown", want: RuleOneResult, faults: []fault{hostStopped, hostStopped, hostStopped}, rate: 2000, host: hostPlan{memoryStore: true},
		edits: []edit{{
			"router/drain.go", "\tfor _, e := range in.lanes.dropUnstarted(anyEntry) {\n",
			"\tfor e := range in.active {\n\t\te.delivery.Settle(nil)\n\t}\n\tfor _, e := range in.lanes.dropUnstarted(anyEntry) {\n",
		}},
	},
	{
		name: "unfenced registry", want: RulePresence, faults: []fault{secondConnections},
		edits: []edit{
			{"transports/device/registry.go", "\tif s.session != session {\n\t\ts.mu.Unlock()\n\t\treturn false\n\t}\n", "\tif s.session == nil {\n\t\ts.mu.Unlock()\n\t\treturn false\n\t}\n"},
			{"transports/device/directory.go", "epoch := max(d.last[device]+1, d.born, at)", "epoch := min(at, 1)"},
		},
	},
	{
		name: "handler run again after a failed publish", want: RuleDuplicates, faults: []fault{unroutable, unroutable}, rate: 1000, host: hostPlan{memoryStore: true, middleware: `"poison", "retry"`},
		edits: []edit{{"router/publisher.go", "d.state.Report(err)\n", "d.state.Report(err)\n\t\treturn err\n"}},
	},
	{
		name: "second write after a crash, at most once", want: RuleDuplicates, faults: []fault{ledgerKill, ledgerKill}, load: load{atMostOnce: 100}, rate: 2000,
		edits: []edit{{"handlers/deliver/deliver.go", "case once && o.attempt > 1:", "case once && o.attempt > 1000:"}},
	},
	{
		name: "a redelivered copy of a held command runs again", want: RuleOrder, faults: []fault{heldKill}, load: load{held: 100, sets: 60},
		edits: []edit{{"internal/ledger/ledger.go", "case r.done, r.owned != nil:", "case r.done:"}},
	},
	{
		name: "hold deleted before the write", want: RuleOneResult, faults: []fault{heldKill}, load: load{held: 100},
		edits: []edit{
			{"internal/ledger/hold.go", "\t\t\tl.reserve(r)\n", "\t\t\tl.reserve(r)\n\t\t\tl.queueChange(Row{Number: r.number})\n"},
			// What is left of such a command in the ledger would be answered otherwise.
			{"router/intake.go", answerAbandoned, ""},
		},
	},
	{
		name: "expiry checked before the lane", want: RuleExpiry, faults: []fault{noFault}, load: load{ttl: 50, requests: 30, never: 50},
		edits: []edit{{"transports/device/frame.go", "&frame{expires: o.Expires, conditions", "&frame{conditions"}},
	},
	{
		name: "answer matched to the wrong command", want: RuleAnswers, faults: []fault{noFault}, load: load{requests: 30, late: 10, never: 10},
		host:  hostPlan{answering: Answering{Pattern: true}},
		edits: []edit{{"transports/device/request.go", "if f.request.isAnsweredBy(r) {", "if len(r.payload) > 0 {"}},
	},
	{
		name: "supersede of one that is being written", want: RuleTrueResult, faults: []fault{manyDontRead}, load: load{sets: 60, long: 100},
		edits: []edit{{"transports/device/queue.go", "f.state == waiting && f.offset == 0 && f.sets == by.sets", "f.sets == by.sets"}},
	},
	{
		name: "commands that the broker lost are not answered", want: RuleOneResult, faults: []fault{expiredKill}, load: load{expiring: 100, requests: 30, never: 50},
		edits: []edit{{"router/intake.go", answerAbandoned, ""}},
	},
	{
		name: "commands given back in a pause", want: RuleBroker, faults: []fault{outage}, disk: "24m", host: hostPlan{deliveryLimit: deliveryLimit},
		edits: []edit{
			{
				"router/sweep.go", "giveBack := late && in.source.Broker",
				"paused := in.pause.isOn() && in.pause.probe == nil && !in.pause.probeDue && now.Sub(in.pause.state.Since()) >= time.Second\n\tgiveBack := (late || paused) && in.source.Broker",
			},
			{"router/pause.go", "lastProbe      = 10 * time.Second", "lastProbe      = 2 * time.Second"},
		},
	},
	{
		name: "a stop that left something exits with 0", want: RuleStop, faults: []fault{diskFullStop}, disk: "24m", load: load{requests: 50, never: 30}, host: hostPlan{shutdownTimeout: 8 * time.Second},
		edits: []edit{{"cmd/pentrough/stop.go", "\treturn uncleanStop(timeout, err)\n", "\tr.log.Warn(uncleanStop(timeout, err).Error())\n\treturn nil\n"}},
	},
	{
		name: "the ledger file is not checked", want: RuleOneResult, faults: []fault{ledgerRemoved}, load: load{held: 100},
		edits: []edit{{"internal/database/watch.go", "\tfolder, err := os.Stat(filepath.Dir(w.path))\n", "\treturn nil\n\tfolder, err := os.Stat(filepath.Dir(w.path))\n"}},
	},
	{
		name: "the ledger isn't locked", want: RuleSecondHost, faults: []fault{secondHost},
		edits: []edit{{"internal/ledger/lock.go", "syscall.LOCK_EX|syscall.LOCK_NB", "syscall.LOCK_SH|syscall.LOCK_NB"}},
	},
}

// TestMistakesCanBePlanted checks that each edit still fits the source. It also runs without make
// chaos.
func TestMistakesCanBePlanted(t *testing.T) {
	for _, m := range mistakes {
		t.Run(m.name, func(t *testing.T) { overlay(t, m.edits) })
	}
}

// TestPlanted runs hosts with a mistake. The rule for each mistake must find it.
func TestPlanted(t *testing.T) {
	if os.Getenv("CHAOS_SEED") == "" {
		t.Skip("it is run by `make chaos`, which says CHAOS_SEED")
	}
	node := testenv.NewNode(t)
	for _, m := range mistakes {
		t.Run(m.name, func(t *testing.T) {
			if m.want != "" {
				t.Parallel() // what one does to the broker may only break more in another
			}
			p := plan{
				seed: 1, queue: "quorum", devices: 100, rate: 400, load: m.load, host: m.host, faults: m.faults, node: node, patience: 5 * time.Second,
			}
			if m.rate != 0 {
				p.rate = m.rate
			}
			if m.want == "" {
				p.patience = time.Minute // all comes to rest, and what doesn't is a mistake
			}
			p.host.answering.Timeout = answerTimeout
			if m.disk != "" {
				p.host.folder = smallDisk(t, m.disk)
			}
			p.host.overlay, p.mistaken = overlay(t, m.edits), m.edits != nil
			h := runPlan(t, p)
			r := NewReport(h)
			broken := map[string]int{}
			for _, rule := range r.Rules {
				if rule.Violations > 0 {
					broken[rule.Rule] = rule.Violations
				}
			}
			t.Logf("%d commands, %d lines, %v; broken: %v", r.Counts.Commands, r.Counts.Lines, r.Counts.States, broken)
			switch {
			case m.want == "" && r.CountViolations() > 0, m.want != "" && broken[m.want] == 0:
				var text strings.Builder
				if err := r.Text(&text); err != nil {
					t.Error(err)
				}
				keepRun(t, "planted-"+strings.ReplaceAll(m.name, " ", "-"), h, r)
				t.Errorf("want it to break %q:\n%s", m.want, text.String())
			case m.want != "":
				i := slices.IndexFunc(r.Violations, func(v Violation) bool { return v.Rule == m.want })
				v := r.Violations[i]
				t.Logf("such as %s %s: %s\n\t%s", v.ID, v.Device, v.What, strings.Join(v.Story, "\n\t"))
			}
		})
	}
}

// overlay writes the edited files and the file for go build -overlay, and returns the path of the
// latter. Without edits it returns "".
func overlay(t *testing.T, edits []edit) string {
	if len(edits) == 0 {
		return ""
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	replace := map[string]string{}
	for _, e := range edits {
		original := filepath.Join(root, e.file)
		edited, again := replace[original]
		if !again {
			edited = filepath.Join(folder, filepath.Base(e.file))
			replace[original] = edited
		}
		source := original
		if again {
			source = edited
		}
		text, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), e.from); n != 1 {
			t.Fatalf("%s has %q %d times, not once: plant the mistake where it belongs now", e.file, e.from, n)
		}
		if err := os.WriteFile(edited, []byte(strings.Replace(string(text), e.from, e.to, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(folder, "overlay.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
