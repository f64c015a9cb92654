package main

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/pentrough/pentrough/cmd/pentrough/internal/scenario"
)

// formats has a function for each format of results.
var formats = map[string]func(io.Writer, []*suite) error{"table": printTable, "junit": printJUnit, "json": printJSON}

// level returns the lowest log level that is recorded in tests.
func (v *tester) level() slog.Level {
	if v.verbose {
		return slog.LevelDebug
	}
	return slog.LevelWarn
}

// printTable prints a line for each test, and the details of failed tests.
func printTable(out io.Writer, suites []*suite) error {
	width := 0
	for _, s := range suites {
		for _, t := range s.tests {
			width = max(width, len([]rune(t.Name)))
		}
	}
	for _, s := range suites {
		if len(s.results) == 0 {
			continue
		}
		failed := 0
		for _, r := range s.results {
			verdict := "ok"
			if r.Failure != nil {
				verdict = "FAIL"
				failed++
			}
			fmt.Fprintf(out, "%-4s  %-*s  %s\n", verdict, width, r.Test.Name, timing(r))
			if r.Failure != nil {
				fmt.Fprint(out, indent("      ", explain(r)))
			}
		}
		if failed > 0 {
			fmt.Fprintf(out, "%s: %d of %d tests failed\n", s.file, failed, len(s.results))
		} else {
			fmt.Fprintf(out, "%s: %d %s passed\n", s.file, len(s.results), plural(len(s.results), "test", "tests"))
		}
	}
	return nil
}

func plural(n int, one, more string) string {
	if n == 1 {
		return one
	}
	return more
}

// timing returns how long a test took, and how much virtual time passed in it.
func timing(r scenario.Result) string {
	text := r.Took.Round(100 * time.Microsecond).String()
	if passed := r.Passed.Round(time.Millisecond); r.Virtual && passed > 0 {
		text += " (" + passed.String() + " passed)"
	}
	return text
}

// explain describes a failure: the place in the file, the difference, and what the host logged.
func explain(r scenario.Result) string {
	f := r.Failure
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: ", f.Place.File, f.Place.Line, f.Place.Column)
	if f.Step > 0 {
		fmt.Fprintf(&b, "step %d: ", f.Step)
	}
	b.WriteString(strings.TrimRight(f.Message, "\n") + "\n")
	if r.Log != "" {
		b.WriteString("the host logged\n" + indent("  ", r.Log))
	}
	return b.String()
}

func indent(by, text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(by + strings.TrimSuffix(line, "\n") + "\n")
	}
	return b.String()
}

// junitSuites is the root of a JUnit report, which CI servers read.
type junitSuites struct {
	XMLName  xml.Name     `xml:"testsuites"`
	Tests    int          `xml:"tests,attr"`
	Failures int          `xml:"failures,attr"`
	Time     string       `xml:"time,attr"`
	Suites   []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Time     string      `xml:"time,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Name    string        `xml:"name,attr"`
	Class   string        `xml:"classname,attr"`
	File    string        `xml:"file,attr"`
	Line    int           `xml:"line,attr"`
	Time    string        `xml:"time,attr"`
	Failure *junitFailure `xml:"failure"`
}

type junitFailure struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.6f", d.Seconds()) }

// printJUnit prints a JUnit report.
func printJUnit(out io.Writer, suites []*suite) error {
	report := junitSuites{}
	var took time.Duration
	for _, s := range suites {
		one := junitSuite{Name: s.file, Tests: len(s.results), Time: seconds(s.took)}
		for _, r := range s.results {
			c := junitCase{Name: r.Test.Name, Class: s.file, File: r.Test.Place.File, Line: r.Test.Place.Line, Time: seconds(r.Took)}
			if r.Failure != nil {
				one.Failures++
				first, _, _ := strings.Cut(r.Failure.Message, "\n")
				c.Failure = &junitFailure{Message: first, Text: explain(r)}
			}
			one.Cases = append(one.Cases, c)
		}
		report.Tests, report.Failures, took = report.Tests+one.Tests, report.Failures+one.Failures, took+s.took
		report.Suites = append(report.Suites, one)
	}
	report.Time = seconds(took)
	text, err := xml.MarshalIndent(report, "", "  ")
	if err != nil {
		return fmt.Errorf("writing a JUnit report: %w", err)
	}
	if _, err := fmt.Fprintf(out, "%s%s\n", xml.Header, text); err != nil {
		return fmt.Errorf("writing a JUnit report: %w", err)
	}
	return nil
}

// jsonResult is the result of one test as JSON.
type jsonResult struct {
	Config string       `json:"config"`
	Test   string       `json:"test"`
	File   string       `json:"file"`
	Line   int          `json:"line"`
	Passed bool         `json:"passed"`
	Took   float64      `json:"took_seconds"`
	Failed *jsonFailure `json:"failure,omitempty"`
}

type jsonFailure struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Step    int    `json:"step,omitempty"`
	Message string `json:"message"`
	Log     string `json:"log,omitempty"`
}

// printJSON prints a line of JSON for each test.
func printJSON(out io.Writer, suites []*suite) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	for _, s := range suites {
		for _, r := range s.results {
			line := jsonResult{
				Config: s.file, Test: r.Test.Name, File: r.Test.Place.File, Line: r.Test.Place.Line, Passed: r.Failure == nil, Took: r.Took.Seconds(),
			}
			if f := r.Failure; f != nil {
				line.Failed = &jsonFailure{File: f.Place.File, Line: f.Place.Line, Column: f.Place.Column, Step: f.Step, Message: f.Message, Log: r.Log}
			}
			if err := enc.Encode(line); err != nil {
				return fmt.Errorf("writing results: %w", err)
			}
		}
	}
	return nil
}
