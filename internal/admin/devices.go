package admin

import (
	nethttp "net/http"
	"time"
)

// Device is one device, as JSON. An offline device has no fields of a session.
type Device struct {
	Device    string `json:"device"`
	Transport string `json:"transport"`
	Online    bool   `json:"online"`
	// Dialed is the address at which the host dials the device. It is empty if the device connects
	// to the host.
	Dialed string `json:"dialed,omitempty"`
	// RemoteAddr, Epoch and ConnectedAt are of the session, as in its event connected.
	RemoteAddr  string     `json:"remote_addr,omitempty"`
	Epoch       uint64     `json:"epoch,omitempty"`
	ConnectedAt *time.Time `json:"connected_at,omitempty"`
	// Carrier is the device whose connection an attached device shares. Then the next three fields
	// are those of the connection.
	Carrier string `json:"carrier,omitempty"`
	// Waiting and WaitingBytes count commands that aren't completely written. Asked counts written
	// requests without an answer.
	Waiting      int `json:"waiting"`
	WaitingBytes int `json:"waiting_bytes"`
	Asked        int `json:"asked"`
	*Traffic
	// LastError is the last error of the device's connections, and LastErrorAt when it happened.
	// It is kept when the device goes offline.
	LastError   string     `json:"last_error,omitempty"`
	LastErrorAt *time.Time `json:"last_error_at,omitempty"`
	// Banned says that the device may not connect.
	Banned bool `json:"banned,omitempty"`
	// Known says that the device is in the inventory, with these labels.
	Known  bool              `json:"known"`
	Labels map[string]string `json:"labels,omitempty"`
}

// Traffic has the counters of a session, as JSON.
type Traffic struct {
	// FramesIn and BytesIn count the frames that the device sent, and their bytes without what the
	// framing adds.
	FramesIn uint64 `json:"frames_in"`
	BytesIn  uint64 `json:"bytes_in"`
	// FramesOut counts the frames that were wholly written to the device, and BytesOut all bytes.
	FramesOut uint64 `json:"frames_out"`
	BytesOut  uint64 `json:"bytes_out"`
	// LastHeard is when bytes last arrived from the device. It may be a second too early.
	LastHeard time.Time `json:"last_heard"`
}

// Fleet is the JSON of /api/v1/devices.
type Fleet struct {
	Host    string    `json:"host"`
	Time    time.Time `json:"time"`
	Devices []Device  `json:"devices"`
}

// devices serves the devices that are online or in the inventory.
func (s *Server) devices(w nethttp.ResponseWriter, _ *nethttp.Request) {
	fleet := Fleet{Host: s.config.Host, Time: time.Now(), Devices: s.config.Devices()}
	if fleet.Devices == nil {
		fleet.Devices = []Device{}
	}
	writeJSON(w, nethttp.StatusOK, fleet)
}
