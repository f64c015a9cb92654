package configs

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/pentrough/pentrough/internal/plugin"
)

// Position is a place in a file. Lines and columns count from 1. Columns count bytes, as in
// compilers.
type Position struct {
	Line, Column int
}

// maxDepth bounds how deeply tables and lists may be nested. The TOML parser is recursive and has
// no bound of its own.
const maxDepth = 64

// positions has the place of each key and list element of a TOML text, by its dotted path.
type positions struct {
	at map[string]Position
	// values has the bytes of src that are the value of a key or element.
	src    string
	values map[string]span
	// keys has all keys in the order of the file.
	keys []keyAt
	// open is the beginning of the innermost list, inline table or string that has no end.
	open *Position
	// tooDeep is the place at which the nesting exceeds maxDepth.
	tooDeep *Position
}

// keyAt is a key and its place.
type keyAt struct {
	// names has the parts of the key. Unlike path, it has no list indices.
	names []string
	path  string
	at    Position
	// part is true for the beginning of a longer key, such as a in a.b.
	part bool
}

// find returns the place of path. If path isn't in the file, it returns the place of the nearest
// table around it.
func (p *positions) find(path string) Position {
	for path != "" {
		if at, ok := p.at[path]; ok {
			return at
		}
		path = plugin.Parent(path)
	}
	return Position{1, 1}
}

// position returns the place of a byte of the file. If something is missing at the end of a line
// or of the file, position returns the place of the last character before the end.
func (p *positions) position(pos int) Position {
	pos = max(0, min(pos, len(strings.TrimRight(p.src, " \t\r\n"))))
	begin := strings.LastIndexByte(p.src[:pos], '\n') + 1
	line, _, _ := strings.Cut(p.src[begin:], "\n")
	if begin == 0 {
		begin = markLength(p.src)
		line = line[min(begin, len(line)):]
	}
	line = strings.TrimSuffix(line, "\r")
	column := max(0, min(pos-begin, len(line)-1))
	for column > 0 && column < len(line) && !utf8.RuneStart(line[column]) {
		column--
	}
	return Position{Line: 1 + strings.Count(p.src[:begin], "\n"), Column: 1 + column}
}

// span is the bytes from begin up to, but not including, end.
type span struct{ begin, end int }

// scanner finds the keys of TOML that the parser accepts. In other text it finds as many as it
// can.
type scanner struct {
	positions
	pos       int
	line      int
	lineStart int
	// tables counts the elements of each array of tables.
	tables map[string]int
	depth  int
}

// scan returns the positions of all keys of src.
func scan(src string) *positions {
	s := &scanner{positions: positions{at: map[string]Position{}, src: src, values: map[string]span{}}, line: 1, tables: map[string]int{}}
	s.pos = markLength(src)
	s.lineStart = s.pos
	prefix, names := "", []string(nil)
	for {
		s.blank()
		switch s.peek() {
		case eof:
			return &s.positions
		case '[':
			prefix, names = s.header()
		default:
			before := s.pos
			s.pair(prefix, names)
			if s.pos == before {
				s.pos++
			}
		}
	}
}

// markLength returns the length of the byte order mark at the start of src.
func markLength(src string) int {
	for _, mark := range []string{"\xff\xfe", "\xfe\xff", "\xef\xbb\xbf"} {
		if strings.HasPrefix(src, mark) {
			return len(mark)
		}
	}
	return 0
}

const eof = 0

func (s *scanner) peek() byte {
	if s.pos >= len(s.src) {
		return eof
	}
	return s.src[s.pos]
}

func (s *scanner) here() Position { return Position{s.line, s.pos - s.lineStart + 1} }

// step skips one byte.
func (s *scanner) step() {
	if s.pos < len(s.src) {
		if s.src[s.pos] == '\n' {
			s.line++
			s.lineStart = s.pos + 1
		}
		s.pos++
	}
}

// spaces skips blanks inside a line.
func (s *scanner) spaces() {
	for s.peek() == ' ' || s.peek() == '\t' {
		s.pos++
	}
}

// blank skips blanks, line ends and comments.
func (s *scanner) blank() {
	for {
		switch s.peek() {
		case ' ', '\t', '\r', '\n':
			s.step()
		case '#':
			for s.pos < len(s.src) && s.peek() != '\n' {
				s.pos++
			}
		default:
			return
		}
	}
}

func (s *scanner) note(path string, at Position) {
	if _, ok := s.at[path]; !ok {
		s.at[path] = at
	}
}

// header reads [a.b] or [[a.b]] and returns the path of the table that it opens.
func (s *scanner) header() (path string, names []string) {
	s.pos++
	list := s.peek() == '['
	if list {
		s.pos++
	}
	keys, places := s.key()
	for s.peek() == ']' {
		s.pos++
	}
	for i, key := range keys {
		path = plugin.Join(path, key)
		s.keys = append(s.keys, keyAt{keys[:i+1], path, places[i], i < len(keys)-1})
		if i == len(keys)-1 {
			break
		}
		s.note(path, places[i])
		if n := s.tables[path]; n > 0 {
			path = plugin.Index(path, n-1)
		}
	}
	if len(keys) == 0 {
		return "", nil
	}
	last := places[len(places)-1]
	if !list {
		// The header of a table is a better place than a key that only implies the table.
		s.at[path] = last
		return path, keys
	}
	s.note(path, last)
	n := s.tables[path]
	s.tables[path]++
	path = plugin.Index(path, n)
	s.note(path, last)
	return path, keys
}

// pair reads `key = value` inside the table at path.
func (s *scanner) pair(path string, names []string) {
	keys, places := s.key()
	if len(keys) == 0 {
		return
	}
	outer := len(names)
	names = append(names[:outer:outer], keys...)
	for i, key := range keys {
		path = plugin.Join(path, key)
		s.note(path, places[i])
		s.keys = append(s.keys, keyAt{names[:outer+i+1], path, places[i], i < len(keys)-1})
	}
	s.spaces()
	if s.peek() == '=' {
		s.pos++
		s.value(path, names)
	}
}

// key reads a dotted key and returns the place of each part.
func (s *scanner) key() (keys []string, places []Position) {
	for {
		s.spaces()
		at := s.here()
		start := s.pos
		switch c := s.peek(); c {
		case '"', '\'':
			s.pos++
			for s.pos < len(s.src) && s.peek() != c && s.peek() != '\n' {
				if c == '"' && s.peek() == '\\' && !strings.HasPrefix(s.src[s.pos+1:], "\n") {
					s.pos++
				}
				s.pos++
			}
			s.pos = min(s.pos, len(s.src))
			text := s.src[start+1 : s.pos]
			if s.peek() == c {
				s.pos++
			}
			if c == '"' {
				text = unescape(text)
			}
			keys, places = append(keys, text), append(places, at)
		default:
			for isBare(s.peek()) {
				s.pos++
			}
			if s.pos == start {
				return keys, places
			}
			keys, places = append(keys, s.src[start:s.pos]), append(places, at)
		}
		s.spaces()
		if s.peek() != '.' {
			return keys, places
		}
		s.pos++
	}
}

func isBare(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}

// value skips a value and records the places of the keys and elements in it.
func (s *scanner) value(path string, names []string) {
	s.spaces()
	begin := s.pos
	defer func() {
		if _, ok := s.values[path]; !ok {
			s.values[path] = span{begin, s.pos}
		}
	}()
	switch s.peek() {
	case '"', '\'':
		s.str()
	case '[', '{':
		s.depth++
		if s.depth > maxDepth {
			at := s.here()
			s.tooDeep = &at
			s.pos = len(s.src)
			return
		}
		s.nested(path, names)
		s.depth--
	default:
		for s.pos < len(s.src) && !strings.ContainsRune(",]}#\n", rune(s.peek())) {
			s.pos++
		}
	}
}

// nested skips a list or an inline table.
func (s *scanner) nested(path string, names []string) {
	table := s.peek() == '{'
	begin := s.here()
	s.pos++
	for i := 0; ; {
		s.blank()
		before := s.pos
		switch s.peek() {
		case eof:
			s.unclosed(begin)
			return
		case ']', '}':
			s.pos++
			return
		case ',':
			s.pos++
			continue
		}
		if table {
			s.pair(path, names)
		} else {
			at := plugin.Index(path, i)
			s.note(at, s.here())
			s.value(at, names)
			i++
		}
		if s.pos == before {
			s.pos++
		}
	}
}

// str skips a string of any of the four kinds.
func (s *scanner) str() {
	q := s.peek()
	if !strings.HasPrefix(s.src[s.pos:], strings.Repeat(string(q), 3)) {
		s.pos++
		for s.pos < len(s.src) && s.peek() != q && s.peek() != '\n' {
			if q == '"' && s.peek() == '\\' && !strings.HasPrefix(s.src[s.pos+1:], "\n") {
				s.pos++
			}
			s.pos++
		}
		if s.pos = min(s.pos, len(s.src)); s.peek() == q {
			s.pos++
		}
		return
	}
	begin := s.here()
	s.pos += 3
	for s.pos < len(s.src) {
		switch {
		case s.peek() == '\\' && q == '"':
			s.step()
			s.step()
		case s.peek() == q:
			run := 0
			for s.peek() == q {
				s.pos++
				run++
			}
			// The text may have up to two quotes right before the three that end it.
			if run >= 3 {
				return
			}
		default:
			s.step()
		}
	}
	s.unclosed(begin)
}

// unclosed records the beginning of something that has no end. The innermost one is recorded first
// and stays.
func (s *scanner) unclosed(begin Position) {
	if s.open == nil {
		s.open = &begin
	}
}

// unescape decodes the escapes of a basic string.
func unescape(text string) string {
	if !strings.Contains(text, `\`) {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' || i+1 == len(text) {
			b.WriteByte(text[i])
			continue
		}
		i++
		digits := 0
		switch c := text[i]; c {
		case 'b':
			b.WriteByte('\b')
		case 't':
			b.WriteByte('\t')
		case 'n':
			b.WriteByte('\n')
		case 'f':
			b.WriteByte('\f')
		case 'r':
			b.WriteByte('\r')
		case 'e':
			b.WriteByte(0x1b)
		case 'x':
			digits = 2
		case 'u':
			digits = 4
		case 'U':
			digits = 8
		default:
			b.WriteByte(c)
		}
		if digits == 0 || i+digits >= len(text) {
			continue
		}
		code, err := strconv.ParseUint(text[i+1:i+1+digits], 16, 32)
		if err == nil && utf8.ValidRune(rune(code)) {
			b.WriteRune(rune(code))
		}
		i += digits
	}
	return b.String()
}
