package plugin

import (
	"regexp"
	"strconv"
)

var bareKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// Join returns the dotted path of a key inside the table at path; a key that TOML would quote is
// quoted.
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

// Parent returns the path of the table or array that the key or element at path is in, "" for a key
// of the file itself.
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
