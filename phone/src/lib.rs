//! A scripted SIP softphone, on purpose another SIP implementation than the engine's.
