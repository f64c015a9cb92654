package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/testenv"
)

// Two operators replay everything at once: the broker gets each message once, with its id.
func TestTwoOperatorsReplayEachMessageOnce(t *testing.T) {
	const rows = 100
	for name, store := range map[string]func(t *testing.T) string{
		"sqlite": func(t *testing.T) string {
			return fmt.Sprintf("type = \"sqlite\"\npath = %q", filepath.Join(t.TempDir(), "ledger.db"))
		},
		"postgres": func(t *testing.T) string {
			return fmt.Sprintf("type = \"postgres\"\nurl = %q", testenv.NewPostgres(t).URL)
		},
	} {
		t.Run(name, func(t *testing.T) {
			url := testenv.Broker(t).VHost(t)
			file := filepath.Join(t.TempDir(), "gateway.toml")
			text := fmt.Sprintf("[store]\n%s\n[transport.broker]\ntype = \"amqp\"\nurl = %q\n[pipeline.dead]\nfrom = \"broker:dead\"\nhandler = \"store\"\non_error = \"drop\"\n", store(t), url)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			keepLetters(t, file, rows)
			conn, err := amqp.Dial(url)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			ch, err := conn.Channel()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ch.QueueDeclare("q", false, false, false, false, nil); err != nil {
				t.Fatal(err)
			}

			var operators sync.WaitGroup
			outputs := make([]bytes.Buffer, 2)
			for i := range outputs {
				operators.Go(func() {
					root := newRoot()
					root.SetOut(&outputs[i])
					root.SetErr(&outputs[i])
					if code := execute(root, []string{"poison", "replay", "-c", file, "--all"}); code != 0 {
						t.Errorf("operator %d: exit code %d:\n%s", i, code, &outputs[i])
					}
				})
			}
			operators.Wait()

			got := map[string]int{}
			for {
				d, ok, err := ch.Get("q", true)
				if err != nil {
					t.Fatal(err)
				}
				if !ok {
					break
				}
				got[d.MessageId]++
				if string(d.Body) != "body of "+d.MessageId || d.Headers["n"] != int16(5) || d.CorrelationId != "c" {
					t.Errorf("message %+v", d)
				}
			}
			want := map[string]int{}
			for n := range rows {
				want[fmt.Sprint("id-", n)] = 1
			}
			if !maps.Equal(want, got) {
				t.Errorf("the broker has %v", got)
			}
			var said int
			for i := range outputs {
				said += strings.Count(outputs[i].String(), ": replayed to exchange")
			}
			if said != rows {
				t.Errorf("the operators told of %d messages:\n%s\n%s", said, &outputs[0], &outputs[1])
			}
		})
	}
}

// keepLetters has a file's store keep messages that came to a queue "q".
func keepLetters(t *testing.T, file string, n int) {
	t.Helper()
	c, _, err := load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	var letters []handlers.DeadLetter
	for i := range n {
		id := fmt.Sprint("id-", i)
		letters = append(letters, handlers.DeadLetter{
			Time: time.Now(), MessageID: id, From: "broker:commands", RoutingKey: "q", Headers: []byte(`[["n","int16","5"]]`), Body: []byte("body of " + id),
			Metadata: map[string]string{"message_id": id, "header.n": "5", "correlation_id": "c", "header.x-death": "gone", "header.x-request-id": "r"},
		})
	}
	s := deadLettersOf(c)
	_, err = s.Keep(t.Context(), letters, handlers.DeadLetterLimits{Keeper: "dead", Rows: 10 * n, Age: time.Hour})
	if err = errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
}

// What fails again while all is replayed isn't replayed again by the same call.
func TestReplayEndsThoughWhatItReplaysFailsAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gateway.toml")
	text := fmt.Sprintf("[store]\ntype = \"sqlite\"\npath = %q\n", filepath.Join(t.TempDir(), "ledger.db"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	const rows = 600 // more than are read at once
	keepLetters(t, file, rows)
	c, _, err := load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	o, err := deadLettersOf(c).Operate(t.Context(), "me")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	w := &poisonWork{poisonVerb: &poisonVerb{all: true}, cmd: newPoison(), Operator: o}
	chosen, err := w.chosenRows(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, err := range chosen {
		if err != nil {
			t.Fatal(err)
		}
		if seen++; seen == 1 {
			keepLetters(t, file, rows) // put aside at another time
		}
	}
	if seen != rows {
		t.Errorf("%d rows were chosen of %d", seen, rows)
	}
}
