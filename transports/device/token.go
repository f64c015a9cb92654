package device

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"strings"

	"github.com/pentrough/pentrough/transports/protocol"
)

// TokenHash is what an inventory has of the token of a device. It is the SHA-256 of a random salt
// and the token. A slow hash would only help tokens that can be guessed, and an attacker could use
// it to keep the host busy (decision 0041).
type TokenHash struct {
	salt [16]byte
	sum  [sha256.Size]byte
}

const tokenScheme = "sha256"

// ErrTokenHash is the error of ParseTokenHash. It doesn't quote the text, because the text could
// be a token.
var ErrTokenHash = errors.New("it isn't the hash of a token; pentrough devices hash-token makes one")

// HashToken returns a hash of a token. Each call returns another one.
func HashToken(token []byte) TokenHash {
	var h TokenHash
	_, _ = rand.Read(h.salt[:]) // it never fails
	h.sum = h.sumOf(token)
	return h
}

func (h *TokenHash) sumOf(token []byte) [sha256.Size]byte {
	return sha256.Sum256(append(h.salt[:len(h.salt):len(h.salt)], token...))
}

// ParseTokenHash parses what String returns.
func ParseTokenHash(text string) (h TokenHash, err error) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 || parts[0] != tokenScheme {
		return TokenHash{}, ErrTokenHash
	}
	for i, field := range [][]byte{h.salt[:], h.sum[:]} {
		b, err := hex.DecodeString(parts[i+1])
		if err != nil || copy(field, b) != len(field) || len(b) != len(field) {
			return TokenHash{}, ErrTokenHash
		}
	}
	return h, nil
}

// String returns the hash as sha256:SALT:SUM, with the salt and the sum in hexadecimal digits.
func (h TokenHash) String() string {
	return tokenScheme + ":" + hex.EncodeToString(h.salt[:]) + ":" + hex.EncodeToString(h.sum[:])
}

// Matches reports in constant time whether the hash is that of the token.
func (h TokenHash) Matches(token []byte) bool {
	sum := h.sumOf(token)
	return subtle.ConstantTimeCompare(sum[:], h.sum[:]) == 1
}

// concealToken overwrites the token of a verdict in the frame and in the payload that the host
// publishes. If neither contains the token as it is, the frame isn't published: the token may be
// in it in another form.
func concealToken(v *protocol.Verdict, frame []byte) {
	if len(v.Token) == 0 {
		v.Token = nil
		return
	}
	v.Token, v.Response = bytes.Clone(v.Token), bytes.Clone(v.Response)
	published := frame
	if v.Payload != nil {
		published = v.Payload
	}
	if !Conceal(published, v.Token) {
		v.NoData, v.Answers = true, protocol.No
	}
	Conceal(frame, v.Token)
}

// Conceal overwrites each occurrence of a token with asterisks. It reports whether there was one.
func Conceal(b, token []byte) (found bool) {
	for len(token) > 0 {
		i := bytes.Index(b, token)
		if i < 0 {
			break
		}
		found = true
		for j := range token {
			b[i+j] = '*'
		}
		b = b[i+len(token):]
	}
	return found
}
