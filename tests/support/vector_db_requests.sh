# The seed's requests to a vector database, as written there; SERVICE_ID stands for the service.
curl http://localhost:8001/api/v1/vector-db/SERVICE_ID/collections

curl -X PUT "http://localhost:8001/api/v1/vector-db/SERVICE_ID/collections/my_documents" \
  -H "Content-Type: application/json" \
  -d '{"vector_size": 384, "distance": "Cosine"}'

curl -X PUT "http://localhost:8001/api/v1/vector-db/SERVICE_ID/collections/my_documents/points" \
  -H "Content-Type: application/json" \
  -d '{
    "points": [
      {"id": 1, "vector": [0.1, 0.2, 0.3, 0.4], "payload": {"text": "First document"}},
      {"id": 2, "vector": [0.4, 0.5, 0.6, 0.7], "payload": {"text": "Second document"}}
    ]
  }'

curl -X POST "http://localhost:8001/api/v1/vector-db/SERVICE_ID/collections/my_documents/points/search" \
  -H "Content-Type: application/json" \
  -d '{"query_vector": [0.1, 0.2, 0.3, 0.4], "limit": 5}'

curl http://localhost:8001/api/v1/vector-db/SERVICE_ID/metrics
