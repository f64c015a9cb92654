-- +goose Up
CREATE TABLE poison (
    number      INTEGER PRIMARY KEY AUTOINCREMENT, -- never given twice
    fingerprint BLOB    NOT NULL UNIQUE,           -- of what makes it the same letter
    keeper      TEXT    NOT NULL,                  -- the pipeline that keeps it
    host        TEXT    NOT NULL,
    kept        INTEGER NOT NULL,                  -- times are Unix milliseconds
    poisoned    INTEGER NOT NULL,
    pipeline    TEXT    NOT NULL,
    handler     TEXT    NOT NULL,
    kind        TEXT    NOT NULL,
    cause       TEXT    NOT NULL,
    attempts    INTEGER NOT NULL,
    message_id  TEXT    NOT NULL,
    source      TEXT    NOT NULL,                  -- transport:topic
    exchange    TEXT    NOT NULL,
    routing_key TEXT    NOT NULL,
    details     BLOB    NOT NULL,                  -- JSON: all of the message but its body, exactly
    body        BLOB    NOT NULL,
    state       INTEGER NOT NULL,                  -- 1 new, 2 replaying, 3 replayed, 4 dropped
    changed     INTEGER NOT NULL,                  -- when the state did
    operator    TEXT    NOT NULL,                  -- who changed it
    claim       TEXT    NOT NULL                   -- names the last replay
) STRICT;
CREATE INDEX poison_keeper_state ON poison (keeper, state, number);
CREATE INDEX poison_keeper_kept ON poison (keeper, kept);

-- +goose Down
DROP TABLE poison;
