package schedule

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/transports"
)

func TestValidate(t *testing.T) {
	for name, c := range map[string]struct {
		topic TopicConfig
		want  []string // what each error says
	}{
		"an interval":                      {TopicConfig{Every: shortestInterval}, nil},
		"a cron":                           {TopicConfig{Cron: "*/5 0,12 1-15 jan,MAR sun"}, nil},
		"day 7 is sunday":                  {TopicConfig{Cron: "0 0 * * 7"}, nil},
		"a range that ends after midnight": {TopicConfig{Cron: "0 22-2 * * *"}, nil},
		"leap days":                        {TopicConfig{Cron: "0 0 29 2 *"}, nil},
		"a descriptor":                     {TopicConfig{Cron: "@hourly", Zone: "Europe/Berlin", Jitter: time.Minute}, nil},
		"the local zone":                   {TopicConfig{Cron: "0 0 * * *", Zone: "Local"}, nil},
		"neither":                          {TopicConfig{Payload: "x"}, []string{"topic.x: needs every (an interval) or cron"}},
		"both":                             {TopicConfig{Every: time.Second, Cron: "@daily"}, []string{"topic.x.cron: can't be used together with every"}},
		"too often":                        {TopicConfig{Every: shortestInterval - 1}, []string{"topic.x.every: 9.999999ms is less than 10ms"}},
		"negative":                         {TopicConfig{Every: -time.Second}, []string{"topic.x.every: -1s is less than 10ms"}},
		"a zone for every":                 {TopicConfig{Every: time.Second, Zone: "UTC"}, []string{"topic.x.zone: is only for cron"}},
		"no such zone":                     {TopicConfig{Cron: "@daily", Zone: "Europe/Brelin"}, []string{`topic.x.zone: "Europe/Brelin" is not a time zone`}},
		"a long jitter":                    {TopicConfig{Every: time.Second, Jitter: time.Second}, []string{"topic.x.jitter: 1s is not less than every, 1s"}},
		"negative jitter":                  {TopicConfig{Cron: "@daily", Jitter: -1}, []string{"topic.x.jitter: -1ns is less than 0s"}},
		"metadata":                         {TopicConfig{Every: time.Second, Metadata: map[string]string{"device": "d", "header.x": "y"}}, nil},
		"metadata of the tick": {
			TopicConfig{Every: time.Second, Metadata: map[string]string{"": "", "message_id": "m", "schedule.due": "now"}},
			[]string{"topic.x.metadata: a key is empty", "every tick sets message_id itself", "every tick sets schedule.due itself"},
		},
		"a minute":               {TopicConfig{Cron: "60 * * * *"}, []string{`topic.x.cron: the minute "60" is invalid; allowed: 0 to 59`}},
		"an hour":                {TopicConfig{Cron: "* x * * *"}, []string{`the hour "x" is invalid`}},
		"a day":                  {TopicConfig{Cron: "* * 0 * *"}, []string{`the day of the month "0" is invalid`}},
		"a month":                {TopicConfig{Cron: "* * * jam *"}, []string{`the month "jam" is invalid`}},
		"a weekday":              {TopicConfig{Cron: "* * * * 8"}, []string{`the day of the week "8" is invalid`}},
		"a step":                 {TopicConfig{Cron: "*/90 * * * *"}, []string{`the minute "*/90" is invalid`}},
		"an empty list":          {TopicConfig{Cron: ", * * * *"}, []string{`the minute "," is invalid`}},
		"the last day":           {TopicConfig{Cron: "0 0 L * *"}, []string{`the day of the month "L" is invalid`}},
		"seconds":                {TopicConfig{Cron: "0 0 4 * * *"}, []string{"topic.x.cron: has 6 fields"}},
		"blank":                  {TopicConfig{Cron: " "}, []string{"topic.x.cron: has 0 fields"}},
		"a day that never comes": {TopicConfig{Cron: "0 0 30 2 *"}, []string{"never happens"}},
		"a zone inside":          {TopicConfig{Cron: "TZ="}, []string{"with the key zone"}},
		"another zone inside":    {TopicConfig{Cron: "CRON_TZ=Europe/Berlin 0 4 * * *"}, []string{"with the key zone"}},
		"an every inside":        {TopicConfig{Cron: "@every 5s"}, []string{"with the key every"}},
		"no descriptor":          {TopicConfig{Cron: "@dayly"}, []string{`"@dayly" is not one of @hourly, @daily`}},
	} {
		t.Run(name, func(t *testing.T) {
			err := (&Config{Topics: map[string]TopicConfig{"x": c.topic}}).Validate()
			if len(c.want) == 0 {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil {
				t.Fatal("it is accepted")
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(c.want) {
				t.Fatalf("%d errors, want %d:\n%v", len(lines), len(c.want), err)
			}
			for i, want := range c.want {
				if !strings.Contains(lines[i], want) {
					t.Errorf("%q doesn't say %q", lines[i], want)
				}
			}
		})
	}
}

func TestTopic(t *testing.T) {
	c := &Config{Topics: map[string]TopicConfig{"poll": {Every: time.Second}, "beat": {Every: time.Second}}}
	got, err := c.Topic("poll", transports.Consume)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(transports.Topic{Window: 1}, got); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []struct {
		name string
		use  transports.Use
		want string
	}{
		{"poll", transports.Produce, "nothing can be published"},
		{"pull", transports.Consume, "topics with a table: beat, poll"},
	} {
		if _, err := c.Topic(bad.name, bad.use); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("topic %s: %v, want %q", bad.name, err, bad.want)
		}
	}
	if _, err := (&Config{}).Topic("x", transports.Consume); err == nil || !strings.Contains(err.Error(), "topics with a table: none") {
		t.Errorf("a topic without any table: %v", err)
	}
}
