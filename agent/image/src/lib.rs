//! Image references, registry client, archives and blobs by digest
