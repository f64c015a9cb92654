package jt808

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"
)

// joiner joins the parts of the messages of a connection.
//
// The parts of a message have consecutive serial numbers. A part that is sent again is the same in
// every byte (JT/T 808-2013, 7.12). So the terminal, the id and the serial number of the first
// part identify a message.
//
// A message is in one of the following states:
//   - incomplete: parts has the parts that have arrived. The next part must arrive before the time
//     in by.
//   - closed: it was complete, or it was dropped because it needed too much memory. Further parts
//     are ignored until the time in by, so that they don't begin a new message.
type joiner struct {
	limits   *Parts
	messages []*joining
	memory   int // of all messages
	// late says that the latest call of add was for a closed message.
	late bool
}

// joining is a message whose parts arrive.
type joining struct {
	from             sender
	id, first, total uint16
	parts            map[uint16][]byte // nil if it is closed
	dropped          bool              // it is closed because it needed too much memory
	memory           int
	requests         int
	by               time.Time
}

// overhead is about the memory that a message or a part needs in addition to its bytes.
const overhead = 128

// add adds a part. If it completes its message, add returns the whole body and true. problem says
// why the part can't be used.
func (j *joiner) add(h *header, body []byte, now time.Time) (whole []byte, isWhole bool, problem string) {
	first := h.serial - (h.part - 1)
	i := slices.IndexFunc(j.messages, func(m *joining) bool { return m.from == h.sender && m.id == h.id && m.first == first })
	if i < 0 || j.messages[i].total != h.parts {
		if i >= 0 {
			j.remove(i)
		}
		i = len(j.messages)
		j.messages = append(j.messages, &joining{from: h.sender, id: h.id, first: first, total: h.parts, parts: map[uint16][]byte{}, memory: overhead})
		j.memory += overhead
	}
	m := j.messages[i]
	m.by = now.Add(j.limits.Timeout)
	j.late = m.parts == nil
	_, isRepeated := m.parts[h.part]
	switch {
	case m.dropped:
		return nil, false, fmt.Sprintf("part %d of %s is dropped, because the message needs too much memory", h.part, m)
	case j.late, isRepeated:
		return nil, false, ""
	}
	size := len(body) + overhead
	if j.memory+size > j.limits.Memory {
		m.dropped = true
		j.close(m)
		if j.memory > j.limits.Memory/2 { // too many closed messages
			j.remove(i)
		}
		return nil, false, fmt.Sprintf("%s is dropped at part %d of %d: its parts and those of other messages need more than %d bytes", m, h.part, m.total, j.limits.Memory)
	}
	m.parts[h.part] = slices.Clone(body)
	m.memory += size
	j.memory += size
	if len(m.parts) < int(m.total) {
		return nil, false, ""
	}
	for n := range m.total {
		whole = append(whole, m.parts[n+1]...)
	}
	j.close(m)
	return whole, true, ""
}

// close frees the memory of a message that needs no more parts.
func (j *joiner) close(m *joining) {
	j.memory -= m.memory - overhead
	m.memory, m.parts = overhead, nil
}

func (j *joiner) remove(i int) {
	j.memory -= j.messages[i].memory
	j.messages = slices.Delete(j.messages, i, i+1)
}

// wake returns when expire has something to do next.
func (j *joiner) wake() (at time.Time) {
	for _, m := range j.messages {
		if at.IsZero() || m.by.Before(at) {
			at = m.by
		}
	}
	return at
}

// expire returns the requests for parts that haven't arrived in time, and why messages are
// dropped.
func (j *joiner) expire(now time.Time) (requests []request, problems []string) {
	for i := 0; i < len(j.messages); i++ {
		m := j.messages[i]
		switch {
		case now.Before(m.by):
			continue
		case m.parts != nil && m.requests < j.limits.Retries:
			m.requests++
			m.by = now.Add(j.limits.Timeout)
			requests = append(requests, request{to: m.from, first: m.first, parts: m.missing(maxRequested)})
			continue
		case m.parts != nil:
			problems = append(problems, fmt.Sprintf("%s is dropped: of its %d parts, %s didn't arrive", m, m.total, m.listMissing()))
		}
		j.remove(i)
		i--
	}
	return requests, problems
}

func (m *joining) String() string {
	return fmt.Sprintf("message %04x with the first serial number %d", m.id, m.first)
}

// missing returns the first missing parts, at most limit.
func (m *joining) missing(limit int) (parts []uint16) {
	for n := 1; n <= int(m.total) && len(parts) < limit; n++ {
		if _, ok := m.parts[uint16(n)]; !ok {
			parts = append(parts, uint16(n))
		}
	}
	return parts
}

// maxListed is how many missing parts a log line lists.
const maxListed = 20

func (m *joining) listMissing() string {
	list := strings.Trim(fmt.Sprint(m.missing(maxListed)), "[]")
	if more := int(m.total) - len(m.parts) - maxListed; more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	return list
}

// maxRequested is how many parts one message can request. In the edition of 2013, the number of
// requested parts has one byte.
const maxRequested = 255

// request asks a terminal to send parts again.
type request struct {
	to    sender
	first uint16
	parts []uint16
}

// body returns the body of the message requestParts.
func (r *request) body() []byte {
	body := binary.BigEndian.AppendUint16(nil, r.first)
	if r.to.versioned {
		body = append(body, 0)
	}
	body = append(body, byte(len(r.parts)))
	for _, n := range r.parts {
		body = binary.BigEndian.AppendUint16(body, n)
	}
	return body
}
