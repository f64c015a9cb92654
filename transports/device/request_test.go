package device

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// asking is a device that gets requests, in a synctest bubble.
type asking struct {
	*testing.T
	registry *Registry
	pipe     *pipe
	session  *Session
	data     *subscriber
	begun    time.Time
}

func askingDevice(t *testing.T, test func(a *asking)) {
	synctest.Test(t, func(t *testing.T) {
		r := testRegistry(t, func(o *Options) { o.Feed.DataPerDevice, o.Feed.DataTotal = 100, 100 })
		a := &asking{T: t, registry: r, data: r.feed.newSubscriber("d"), begun: time.Now()}
		a.connect()
		test(a)
	})
}

func (a *asking) connect() {
	a.pipe = newPipe(1 << 20)
	a.session = connect(a.T, a.registry, "d", a.pipe)
}

// ask enqueues a payload whose name is its id, and returns how it ends.
func (a *asking) ask(payload string, o EnqueueOptions) <-chan Written {
	a.Helper()
	o.ID = payload
	w, err := a.registry.Enqueue("d", []byte(payload), o)
	if err != nil {
		a.Fatal(err)
	}
	ended := make(chan Written, 1)
	go func() { ended <- w.Wait(context.Background()) }()
	synctest.Wait()
	return ended
}

// next is a request that the next frame answers.
func next(timeout time.Duration) EnqueueOptions {
	return EnqueueOptions{Request: &Request{Timeout: timeout}}
}

// tagged is a request that a frame answers if it begins with tag.
func tagged(tag string, maxOpen int) EnqueueOptions {
	return EnqueueOptions{Request: &Request{Timeout: time.Second, MaxOpen: maxOpen, Distinct: true, Matches: func(frame []byte) bool { return bytes.HasPrefix(frame, []byte(tag)) }}}
}

func (a *asking) says(frames ...string) {
	a.Helper()
	for _, f := range frames {
		if err := a.session.Data([]byte(f)); err != nil {
			a.Fatal(err)
		}
	}
	synctest.Wait()
}

func (a *asking) ends(ended <-chan Written, fate Fate, reply, detail string) {
	a.Helper()
	synctest.Wait()
	select {
	case got := <-ended:
		if got.Fate != fate || got.Reply != reply || !strings.HasPrefix(got.Detail, detail) || got.Epoch == 0 {
			a.Errorf("ended as %+v, want %d %q %q", got, fate, reply, detail)
		}
	default:
		a.Errorf("has not ended, want %d %q", fate, reply)
	}
}

// read is what the device has read on its connection.
func (a *asking) read(want ...string) {
	a.Helper()
	synctest.Wait()
	if got := strings.Split(strings.TrimSuffix(a.pipe.bytes(), "\n"), "\n"); !slices.Equal(got, want) {
		a.Errorf("after %s the device has read %q, want %q", time.Since(a.begun), got, want)
	}
}

// published is the data that was, with the ids of those that it answers too late.
func (a *asking) published(want ...string) {
	a.Helper()
	var got []string
	for {
		it := a.data.backlogs[DataTopic].takeFirst()
		if it == nil {
			break
		}
		r := it.record.(*dataRecord)
		text := r.payload
		if r.lateFor != "" {
			text += " late for " + r.lateFor
		}
		got = append(got, text)
	}
	if !slices.Equal(got, want) {
		a.Errorf("published %q, want %q", got, want)
	}
}

func TestTheNextFrameAnswers(t *testing.T) {
	askingDevice(t, func(a *asking) {
		a.says("before")
		first, order, second := a.ask("first?", next(time.Second)), a.ask("order", EnqueueOptions{}), a.ask("second?", next(time.Second))
		a.read("first?")
		a.says("yes")
		a.ends(first, Answered, "yes", "")
		a.ends(order, Sent, "", "")
		a.read("first?", "order", "second?")
		a.says("no")
		a.ends(second, Answered, "no", "")
		a.says("after")
		a.published("before", "after")
	})
}

func TestALateAnswerIsDataThatSaysSo(t *testing.T) {
	askingDevice(t, func(a *asking) {
		first, second := a.ask("first?", next(time.Second)), a.ask("second?", next(time.Second))
		order := a.ask("order", EnqueueOptions{})
		time.Sleep(time.Second)
		a.ends(first, NoReply, "", "no answer came within 1s")
		a.read("first?") // what comes now is the answer to it
		time.Sleep(time.Second / 2)
		a.says("yes")
		a.published("yes late for first?")
		a.read("first?", "second?")
		a.says("no")
		a.ends(second, Answered, "no", "")
		a.ends(order, Sent, "", "")
		a.published()
	})
}

func TestALateAnswerIsNotWaitedForLong(t *testing.T) {
	askingDevice(t, func(a *asking) {
		first, second := a.ask("first?", next(time.Second)), a.ask("second?", next(time.Second))
		time.Sleep(2*time.Second - time.Nanosecond)
		a.ends(first, NoReply, "", "")
		a.read("first?")
		time.Sleep(time.Nanosecond)
		a.read("first?", "second?")
		a.says("no")
		a.ends(second, Answered, "no", "")
		time.Sleep(time.Hour)
		a.says("hello")
		a.published("hello")
	})
}

// A host that stood still finds both when it goes on: that the time is over, and the answer.
func TestALateAnswerThatIsUnreadIsWaitedFor(t *testing.T) {
	askingDevice(t, func(a *asking) {
		first, second := a.ask("first?", next(time.Second)), a.ask("second?", next(time.Second))
		order := a.ask("order", EnqueueOptions{})
		time.Sleep(time.Second)
		a.ends(first, NoReply, "", "")
		a.pipe.change(func() { a.pipe.unread = true })
		time.Sleep(time.Minute)
		a.read("first?")
		a.says("yes")
		a.read("first?")
		a.pipe.change(func() { a.pipe.unread = false })
		time.Sleep(unreadPause)
		a.read("first?", "second?")
		a.says("no")
		a.ends(second, Answered, "no", "")
		a.ends(order, Sent, "", "")
		a.published("yes")
	})
}

func TestAnswersFindTheirQuestions(t *testing.T) {
	askingDevice(t, func(a *asking) {
		one, two, three := a.ask("one?", tagged("1", 2)), a.ask("two?", tagged("2", 2)), a.ask("three?", tagged("3", 2))
		a.read("one?", "two?")
		a.says("hello", "2=b")
		a.ends(two, Answered, "2=b", "")
		a.read("one?", "two?", "three?")
		order := a.ask("order", EnqueueOptions{})
		a.ends(order, Sent, "", "")
		a.says("1=a")
		a.ends(one, Answered, "1=a", "")
		time.Sleep(time.Second)
		a.ends(three, NoReply, "", "")
		four := a.ask("four?", tagged("4", 2))
		a.says("3=c", "4=d", "4=d")
		a.ends(four, Answered, "4=d", "")
		a.published("hello", "3=c late for three?", "4=d")
	})
}

func TestAQuestionEndsWithItsSession(t *testing.T) {
	askingDevice(t, func(a *asking) {
		first, second := a.ask("first?", next(time.Second)), a.ask("second?", next(time.Second))
		a.connect() // takes over
		a.ends(first, NoReply, "", "the session ended (replaced) before it answered")
		a.read("second?")
		a.session.End(ConnectionLost)
		a.ends(second, NoReply, "", "the session ended (connection_lost) before it answered")
		a.connect()
		third := a.ask("third?", next(time.Second))
		a.says("hello")
		a.ends(third, Answered, "hello", "")
		a.published()
	})
}

// The answer is read before the write of the request has returned.
func TestAnAnswerBeforeTheWriteReturns(t *testing.T) {
	askingDevice(t, func(a *asking) {
		said := make(chan struct{})
		a.pipe.change(func() {
			a.pipe.onTry = func() {
				go func() {
					defer close(said)
					_ = a.session.Data([]byte("yes"))
				}()
				time.Sleep(time.Millisecond) // until it waits
			}
		})
		first := a.ask("first?", next(time.Second))
		time.Sleep(time.Millisecond)
		<-said
		a.ends(first, Answered, "yes", "")
		a.published()
	})
}

func TestAQuestionThatIsPartlyWritten(t *testing.T) {
	askingDevice(t, func(a *asking) {
		a.pipe.change(func() { a.pipe.room = 3 })
		first := a.ask("first?", next(time.Second))
		a.says("hello") // half a request has no answer
		a.published("hello")
		time.Sleep(10 * time.Second)
		a.pipe.grant(100)
		synctest.Wait()
		time.Sleep(time.Second / 2) // its time counts from its last byte
		a.says("yes")
		a.ends(first, Answered, "yes", "")
	})
}

func TestWhatWaitsBehindAQuestionExpires(t *testing.T) {
	askingDevice(t, func(a *asking) {
		first := a.ask("first?", next(time.Second))
		late := a.ask("late", EnqueueOptions{Expires: time.Now().Add(time.Second / 2)})
		time.Sleep(time.Second)
		a.ends(late, Expired, "", "")
		a.ends(first, NoReply, "", "")
		a.read("first?")
	})
}

func TestAGapBetweenCommands(t *testing.T) {
	askingDevice(t, func(a *asking) {
		gap := EnqueueOptions{Gap: 100 * time.Millisecond}
		for _, payload := range []string{"a", "b", "c"} {
			a.ask(payload, gap)
		}
		a.read("a")
		time.Sleep(99 * time.Millisecond)
		a.read("a")
		time.Sleep(time.Millisecond)
		a.read("a", "b")
		time.Sleep(time.Minute)
		a.read("a", "b", "c")
		a.ask("d", gap)
		a.read("a", "b", "c", "d")
	})
}
