package walls

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// The rules of docs/glossary.md and of CONTRIBUTING.md that a program can check. They hold for
// comments and texts in Go files, for Markdown, and for comments in configuration files.

// phrases are words that readers have to read twice, or that mean something else than the
// glossary says, with what to write instead.
var phrases = []struct{ pattern, instead string }{
	{`(comes?|came|coming) again`, "is redelivered, is repeated"},
	{`(is|are|was|were|been|be|being) told`, "logs, returns, receives"},
	{`lends?|lent`, "passes, gives"},
	{`so many`, "N, the number of"},
	{`whoever`, "anyone who, the caller"},
	{`(any|every|some)body`, "anyone, everyone, someone; better: who"},
	{`beside`, "next to, in addition to"},
	{`meanwhile`, "leave it out, or say until when"},
	{`of these`, "of them"},
	{`he`, "they"},
	{`(is|are|was|were) away`, "is offline"},
	{`surely`, "say what is known, and since when"},
	{`gone through`, "released, walked"},
	{`handed out again`, "redelivered"},
	{`questions?`, "request"},
}

// allowedPhrases are the places where such words are right, with the reason.
var allowedPhrases = map[string]map[string]string{}

// column is where prose ends, with tabs of four columns.
const column = 100

// text is a piece of prose with the place where it begins.
type text struct {
	file  string
	line  int
	words string
}

func TestProseKeepsToPlainWords(t *testing.T) {
	for _, file := range proseFiles(t) {
		for _, p := range proseOf(t, file, source(t, file)) {
			for _, found := range readTwice(p.words) {
				if allowedPhrases[file][found.phrase] == "" {
					t.Errorf("%s:%d: %q; instead: %s", file, p.line, found.phrase, found.instead)
				}
			}
		}
	}
}

func TestProseEndsBeforeColumn100(t *testing.T) {
	for _, file := range proseFiles(t) {
		for _, line := range longLines(t, file, source(t, file)) {
			t.Errorf("%s:%d: a line of prose goes beyond column %d", file, line, column-1)
		}
	}
}

func TestAllowedPhrasesAreUsed(t *testing.T) {
	for file, words := range allowedPhrases {
		var used []string
		for _, p := range proseOf(t, file, source(t, file)) {
			for _, found := range readTwice(p.words) {
				used = append(used, found.phrase)
			}
		}
		for word, reason := range words {
			if reason == "" || !slices.Contains(used, word) {
				t.Errorf("%s: %q is allowed, and isn't there or has no reason", file, word)
			}
		}
	}
}

func TestWhatIsReadTwiceIsSeen(t *testing.T) {
	for text, want := range map[string]int{
		"A message that comes\nagain is told so.":     2,
		"Whoever reads, he stands beside it.":         3,
		"The broker redelivers the message.":          0,
		"the hero overcomes against, besides":         0,
		"`SELECT he FROM t` and code: `so many`":      0,
		"Anybody who asks a question. Many questions": 3,
	} {
		if found := readTwice(text); len(found) != want {
			t.Errorf("%q: %v", text, found)
		}
	}
}

type readTwiceFound struct{ phrase, instead string }

var (
	inlineCode   = regexp.MustCompile("`[^`]*`")
	phrasesFound = func() []*regexp.Regexp {
		var all []*regexp.Regexp
		for _, p := range phrases {
			all = append(all, regexp.MustCompile(`(?i)\b(?:`+strings.ReplaceAll(p.pattern, " ", `\s+`)+`)\b`))
		}
		return all
	}()
)

// readTwice returns the phrases in a text that are in the list. Code between backticks is no prose.
func readTwice(text string) (found []readTwiceFound) {
	text = inlineCode.ReplaceAllString(text, "``")
	for i, p := range phrases {
		for _, phrase := range phrasesFound[i].FindAllString(text, -1) {
			found = append(found, readTwiceFound{strings.ToLower(strings.Join(strings.Fields(phrase), " ")), p.instead})
		}
	}
	return found
}

// proseFiles returns the files of the module that have prose in them, as paths with slashes.
func proseFiles(t *testing.T) (files []string) {
	t.Helper()
	root := os.DirFS(filepath.Join("..", ".."))
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (path == "bin" || path == "node_modules" || path != "." && strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case path == "internal/walls/prose_test.go": // it has the phrases
		case slices.Contains([]string{".go", ".md", ".toml"}, filepath.Ext(path)):
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// source returns the text of a file of the module.
func source(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(file)))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// proseOf returns the prose of a file.
func proseOf(t *testing.T, file, content string) []text {
	t.Helper()
	switch filepath.Ext(file) {
	case ".go":
		return goProse(t, file, content)
	case ".toml":
		return tomlProse(file, content)
	}
	return markdownProse(file, content)
}

// goProse returns the comments and the texts of a Go file. Texts of tests are what they test with.
func goProse(t *testing.T, file, content string) (prose []text) {
	t.Helper()
	files := token.NewFileSet()
	f, err := parser.ParseFile(files, file, content, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range f.Comments {
		prose = append(prose, text{file, files.Position(c.Pos()).Line, c.Text()})
	}
	if strings.HasSuffix(file, "_test.go") {
		return prose
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
			if words, err := strconv.Unquote(literal.Value); err == nil && strings.Contains(words, " ") {
				prose = append(prose, text{file, files.Position(literal.Pos()).Line, words})
			}
		}
		return true
	})
	return prose
}

// markdownProse returns a page's text outside of code.
func markdownProse(file, page string) (prose []text) {
	code := false
	for i, line := range strings.Split(page, "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			code = !code
		} else if !code {
			prose = append(prose, text{file, i + 1, line})
		}
	}
	return prose
}

// tomlProse returns the comments of a configuration file.
func tomlProse(file, content string) (prose []text) {
	for i, line := range strings.Split(content, "\n") {
		if comment, ok := strings.CutPrefix(strings.TrimSpace(line), "#"); ok {
			prose = append(prose, text{file, i + 1, comment})
		}
	}
	return prose
}

// link is where a Markdown link or an address points to: it can't be broken into lines.
var link = regexp.MustCompile(`\]\([^)]*\)|https?://\S+`)

// longLines returns the numbers of the lines whose prose goes beyond the column.
func longLines(t *testing.T, file, content string) (long []int) {
	t.Helper()
	lines := strings.Split(content, "\n")
	isLong := func(n int) bool {
		line := link.ReplaceAllString(strings.ReplaceAll(lines[n-1], "\t", "    "), "]")
		return utf8.RuneCountInString(line) >= column
	}
	if filepath.Ext(file) == ".go" {
		files := token.NewFileSet()
		f, err := parser.ParseFile(files, file, content, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, group := range f.Comments {
			for _, c := range group.List {
				for n := files.Position(c.Pos()).Line; n <= files.Position(c.End()).Line; n++ {
					indented := strings.HasPrefix(strings.TrimSpace(lines[n-1]), "//\t") // code or a table
					if isLong(n) && !indented && !strings.HasPrefix(c.Text, "//go:") && !slices.Contains(long, n) {
						long = append(long, n)
					}
				}
			}
		}
		return long
	}
	for _, p := range proseOf(t, file, content) {
		if !strings.HasPrefix(strings.TrimSpace(p.words), "|") && isLong(p.line) {
			long = append(long, p.line)
		}
	}
	return long
}

func TestLongLinesAreSeen(t *testing.T) {
	words := strings.Repeat("word ", 30)
	for line, want := range map[string]int{
		words:                              1,
		"| " + words + "|":                 0,
		"see [it](" + words + ")":          0,
		"```\n" + words + "\n```":          0,
		"\t" + strings.Repeat("x", 95):     0,
		"\t" + strings.Repeat("x", 96):     1,
		fmt.Sprintf("https://x/%0120d", 1): 0,
	} {
		if long := longLines(t, "page.md", line); len(long) != want {
			t.Errorf("%.40q: lines %v", line, long)
		}
	}
}
