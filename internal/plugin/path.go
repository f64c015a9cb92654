package plugin

import (
	"regexp"
	"strconv"
)

var bareKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// Join returns the dotted path of a key in the table at path. It quotes a key that TOML must
// quote.
func Join(path, key string) string {
	if !bareKey.MatchString(key) {
		key = strconv.Quote(key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// Index returns the path of an element of the array at path, counted from 0.
func Index(path string, i int) string {
	return path + "[" + strconv.Itoa(i) + "]"
}

// Parent returns the path of the table or array that contains the key or element at path. It
// returns "" for a key at the top of the file.
func Parent(path string) string {
	quoted, end := false, 0
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == '.' || c == '['):
			end = i
		}
	}
	return path[:end]
}
