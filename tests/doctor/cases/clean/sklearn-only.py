# expect: nothing
# about: no network at all: a forest in a pipeline, cross-validated; torch is only imported for a tensor
import torch
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

X, y = load_wine(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
model = make_pipeline(StandardScaler(), RandomForestClassifier(100, random_state=0))
scores = torch.tensor(cross_val_score(model, X_train, y_train, cv=4))
model.fit(X_train, y_train)
print(f"cv {scores.mean():.3f} +- {scores.std():.3f}; test {model.score(X_test, y_test):.3f}")
